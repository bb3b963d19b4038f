import JSONText

/// Checks answers by what their functions promise, apart from their digests.
package enum AnswerCheck {
    /// Why an answer cannot be right; nil when nothing speaks against it.
    package static func fault(of function: String, seed: UInt64, _ body: [UInt8]) -> String? {
        guard let answer = try? JSONValue.parse(body), answer.members != nil else {
            return "is not a JSON object"
        }
        guard answer["seed"]?.integer == Int64(exactly: seed) else { return "is for another seed" }
        guard let digest = answer["digest"]?.string, digest.count >= 64 else {
            return "has no digest"
        }
        return algorithmicFault(of: function, answer)
    }

    private static func algorithmicFault(of function: String, _ answer: JSONValue) -> String? {
        func number(_ key: String) -> Int64 { answer[key]?.integer ?? -1 }
        switch function {
        case "graph":
            let layers = (answer["layers"]?.array ?? []).compactMap(\.integer)
            return layers.reduce(0, +) == number("vertices") && layers.first == 1
                ? nil : "its layers do not add up to the graph"
        case "json":
            return number("inside") >= 0 && number("items") == number("inside") + number("outside")
                ? nil : "its items do not add up"
        case "image":
            return number("pixels") > 0 && number("pixels") == number("histogram_total")
                ? nil : "its histogram does not count every pixel"
        case "float":
            let ones = answer["ones"]?.double ?? -1
            return abs(ones - Double(number("terms"))) < 1e-3
                ? nil : "sin^2 + cos^2 is not 1 on average"
        case "web":
            return number("bytes") > 0 && number("page") >= 0 ? nil : "has no page"
        case "matmul":
            return number("size") > 0 && number("wrong_rows") == 0
                ? nil : "its product fails Freivalds' check"
        case "linpack":
            return number("wrong_unknowns") == 0 && answer["is_accurate"]?.bool == true
                ? nil : "its solution does not solve the system"
        case "chameleon":
            return number("cells") == 10_000 && number("sum") == number("page_sum")
                ? nil : "its page does not show the table"
        case "pyaes":
            return number("characters") > 0 && number("restored") == number("characters")
                ? nil : "its text does not come back"
        case "gzip":
            return number("bytes") > 0 && number("restored") == number("bytes")
                ? nil : "its file does not come back"
        case "bert":
            // Exactly BERT-base with its masked-token head.
            let sum = answer["probability_sum"]?.double ?? -1
            return number("parameters") == 109_514_298 && abs(sum - 1) < 1e-3
                ? nil : "its probabilities do not add up to 1"
        default: return nil
        }
    }
}
