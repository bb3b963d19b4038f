import JSONText
import Testing

@Suite struct JSONTextTests {
    @Test func valuesSurviveARoundTrip() throws {
        let value: JSONValue = [
            "schema": 1, "name": "a \"quoted\"\n\u{1}\u{1F600}", "ratio": 0.25, "on": true,
            "none": nil, "list": [1, -2, [], [:]],
        ]
        #expect(try JSONValue.parse(value.rendered()) == value)
        #expect(try JSONValue.parse(value.rendered(pretty: true)) == value)
    }

    @Test func accessorsDoNotConvertSilently() throws {
        let value = try JSONValue.parse(#"{"a": 1.5, "b": "x", "c": [2, 3e2], "d": 1e3}"#)
        #expect(value["a"]?.integer == nil)
        #expect(value["a"]?.double == 1.5)
        #expect(value["b"]?.string == "x")
        #expect(value["b"]?.integer == nil)
        #expect(value["c"]?[1]?.integer == 300)
        #expect(value["c"]?[2] == nil)
        #expect(value["zz"] == nil)
    }

    @Test func notFiniteNumbersBecomeNull() {
        #expect(JSONValue.array([.number(.nan), .number(.infinity)]).rendered() == "[null,null]")
    }

    @Test(arguments: [
        ("", JSONError.Reason.unexpectedEnd), ("{", .unexpectedEnd), ("[1,]", .unexpectedByte),
        ("{\"a\":1,\"a\":2}", .duplicateKey), ("01", .trailingText), ("-", .badNumber),
        ("1.", .badNumber), ("1e", .badNumber), ("1e999", .badNumber), ("nul", .unexpectedEnd),
        ("nulx", .unexpectedByte), ("\"\\x\"", .badEscape), ("\"\\ud800\"", .badEscape),
        ("\"\\ud800\\u0041\"", .badEscape), ("\"\\u00g0\"", .badEscape), ("\"\n\"", .badString),
        ("{a:1}", .unexpectedByte), ("1 2", .trailingText), ("'a'", .unexpectedByte),
    ])
    func malformedTextIsRefused(text: String, reason: JSONError.Reason) {
        #expect { try JSONValue.parse(text) } throws: { ($0 as? JSONError)?.reason == reason }
    }

    @Test func invalidUTF8IsRefused() {
        #expect(throws: JSONError.self) { try JSONValue.parse([0x22, 0xC3, 0x28, 0x22]) }
    }

    @Test func escapesDecode() throws {
        let value = try JSONValue.parse(#""\u0041\ud83d\ude00\/\b\t""#)
        #expect(value.string == "A\u{1F600}/\u{8}\t")
    }

    @Test func depthAndSizeAreBounded() throws {
        let limits = JSONLimits(bytesMax: 1000, depthMax: 4)
        _ = try JSONValue.parse("[[[[]]]]", limits: limits)
        #expect { try JSONValue.parse("[[[[[]]]]]", limits: limits) } throws: {
            ($0 as? JSONError)?.reason == .tooDeep
        }
        #expect {
            try JSONValue.parse(String(repeating: " ", count: 1001), limits: limits)
        } throws: {
            ($0 as? JSONError)?.reason == .tooLarge
        }
        let deep = String(repeating: "[", count: 1_000_000)
        #expect(throws: JSONError.self) { try JSONValue.parse(deep) }
    }
}
