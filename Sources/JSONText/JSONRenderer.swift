extension JSONValue {
    /// This value as JSON text. `pretty` indents by two spaces and ends with a newline; else it is one line.
    package func rendered(pretty: Bool = false) -> String {
        String(decoding: renderedBytes(pretty: pretty), as: UTF8.self)
    }

    /// This value as the UTF-8 bytes of JSON text.
    package func renderedBytes(pretty: Bool = false) -> [UInt8] {
        var renderer = JSONRenderer(pretty: pretty)
        renderer.append(self, depth: 0)
        if pretty { renderer.bytes.append(UInt8(ascii: "\n")) }
        return renderer.bytes
    }
}

private struct JSONRenderer {
    let pretty: Bool
    var bytes: [UInt8] = []

    init(pretty: Bool) { self.pretty = pretty }

    mutating func append(_ value: JSONValue, depth: Int) {
        switch value {
        case .null: bytes += "null".utf8
        case .bool(let flag): bytes += (flag ? "true" : "false").utf8
        case .integer(let number): bytes += String(number).utf8
        case .number(let number): bytes += (number.isFinite ? "\(number)" : "null").utf8
        case .string(let text): appendString(text)
        case .array(let elements):
            appendGroup(open: "[", close: "]", count: elements.count, depth: depth) {
                $0.append(elements[$1], depth: depth + 1)
            }
        case .object(let members):
            appendGroup(open: "{", close: "}", count: members.count, depth: depth) {
                $0.appendString(members[$1].key)
                $0.bytes += ($0.pretty ? ": " : ":").utf8
                $0.append(members[$1].value, depth: depth + 1)
            }
        }
    }

    private mutating func appendGroup(
        open: Unicode.Scalar, close: Unicode.Scalar, count: Int, depth: Int,
        element: (inout JSONRenderer, Int) -> Void
    ) {
        bytes.append(UInt8(ascii: open))
        for index in 0..<count {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            newline(depth + 1)
            element(&self, index)
        }
        if count > 0 { newline(depth) }
        bytes.append(UInt8(ascii: close))
    }

    private mutating func newline(_ depth: Int) {
        guard pretty else { return }
        bytes.append(UInt8(ascii: "\n"))
        bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: depth * 2))
    }

    private mutating func appendString(_ text: String) {
        let hex = Array("0123456789abcdef".utf8)
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): bytes += "\\\"".utf8
            case UInt8(ascii: "\\"): bytes += "\\\\".utf8
            case 0x0A: bytes += "\\n".utf8
            case 0x0D: bytes += "\\r".utf8
            case 0x09: bytes += "\\t".utf8
            case 0..<0x20, 0x7F:
                bytes += "\\u00".utf8
                bytes.append(hex[Int(byte >> 4)])
                bytes.append(hex[Int(byte & 15)])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}
