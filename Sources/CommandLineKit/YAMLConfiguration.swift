import CYAML

/// A configuration file's text as flat entries: nested maps become dotted keys, a list becomes several values.
///
/// Only what a configuration needs: maps, lists of scalars and scalars. Anchors, aliases, tags, several documents and
/// empty values are refused rather than guessed at. Pure: reads no file.
package struct YAMLConfiguration: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        /// `policy.semi-warm.percentile`
        package let key: String
        package let values: [String]
        /// Counted from 1.
        package let line: Int
    }

    package let entries: [Entry]

    /// Larger files are refused.
    package static let bytesMax = 1 << 20
    private static let depthMax = 8
    private static let entriesMax = 4096

    /// Parses YAML text. The error names the line.
    package static func parse(_ text: [UInt8]) throws(UsageError) -> YAMLConfiguration {
        guard text.count <= bytesMax else {
            throw UsageError("the file is larger than 1MiB", isFromConfiguration: true)
        }
        let events = try YAMLEvent.all(in: text, countMax: 8 * entriesMax)
        var reader = EventReader(events: events[...], depthMax: depthMax, entriesMax: entriesMax)
        try reader.readDocument()
        return YAMLConfiguration(entries: reader.entries)
    }
}

/// One event of libyaml, as a value.
private struct YAMLEvent {
    enum Kind: Equatable {
        case mapStart, mapEnd, listStart, listEnd
        case scalar(String, isPlain: Bool)
        case unsupported(String)
    }

    let kind: Kind
    let line: Int

    /// Runs libyaml over the whole text. Document and stream markers are dropped, a second document is refused.
    static func all(in text: [UInt8], countMax: Int) throws(UsageError) -> [YAMLEvent] {
        var parser = unsafe yaml_parser_t()
        guard unsafe yaml_parser_initialize(&parser) == 1 else {
            throw UsageError("no memory to read the file", isFromConfiguration: true)
        }
        defer { unsafe yaml_parser_delete(&parser) }
        var events: [YAMLEvent] = []
        var failure: String?
        // SAFETY: libyaml keeps the pointer to the text only while events are read, inside this closure.
        unsafe text.withUnsafeBufferPointer { buffer in
            unsafe yaml_parser_set_input_string(&parser, buffer.baseAddress, buffer.count)
            failure = unsafe collect(&parser, into: &events, countMax: countMax)
        }
        if let failure { throw UsageError(failure, isFromConfiguration: true) }
        return events
    }

    /// Reads to the end of the stream; a text when it fails.
    private static func collect(
        _ parser: inout yaml_parser_t, into events: inout [YAMLEvent], countMax: Int
    ) -> String? {
        var documents = 0
        while true {
            var event = unsafe yaml_event_t()
            guard unsafe yaml_parser_parse(&parser, &event) == 1 else {
                let problem = unsafe parser.problem.map { unsafe String(cString: $0) }
                let line = unsafe parser.problem_mark.line + 1
                return "line \(line): not valid YAML: \(problem ?? "unreadable")"
            }
            defer { unsafe yaml_event_delete(&event) }
            let line = unsafe Int(event.start_mark.line) + 1
            switch unsafe event.type {
            case YAML_STREAM_END_EVENT: return nil
            case YAML_DOCUMENT_START_EVENT:
                documents += 1
                if documents > 1 { return "line \(line): only one YAML document is allowed" }
            case YAML_STREAM_START_EVENT, YAML_DOCUMENT_END_EVENT: break
            default: events.append(unsafe YAMLEvent(kind: kind(of: event), line: line))
            }
            if events.count > countMax { return "line \(line): the file has too many entries" }
        }
    }

    private static func kind(of event: yaml_event_t) -> Kind {
        switch unsafe event.type {
        case YAML_MAPPING_START_EVENT:
            let start = unsafe event.data.mapping_start
            let isBare = unsafe start.anchor == nil && start.tag == nil
            return isBare ? .mapStart : .unsupported("anchors and tags")
        case YAML_SEQUENCE_START_EVENT:
            let start = unsafe event.data.sequence_start
            let isBare = unsafe start.anchor == nil && start.tag == nil
            return isBare ? .listStart : .unsupported("anchors and tags")
        case YAML_MAPPING_END_EVENT: return .mapEnd
        case YAML_SEQUENCE_END_EVENT: return .listEnd
        case YAML_SCALAR_EVENT:
            let scalar = unsafe event.data.scalar
            guard unsafe scalar.anchor == nil, unsafe scalar.tag == nil else {
                return .unsupported("anchors and tags")
            }
            // SAFETY: libyaml owns `length` bytes at `value` until the event is deleted; they are copied here.
            let bytes = unsafe UnsafeBufferPointer(start: scalar.value, count: scalar.length)
            let text = unsafe String(decoding: bytes, as: UTF8.self)
            return .scalar(text, isPlain: unsafe scalar.style == YAML_PLAIN_SCALAR_STYLE)
        default: return .unsupported("aliases")
        }
    }
}

/// Turns events into entries. A small recursive descent whose depth is bounded.
private struct EventReader {
    var events: ArraySlice<YAMLEvent>
    let depthMax: Int
    let entriesMax: Int
    var entries: [YAMLConfiguration.Entry] = []

    private func failure(_ message: String, line: Int) -> UsageError {
        UsageError("line \(line): \(message)", isFromConfiguration: true)
    }

    mutating func readDocument() throws(UsageError) {
        guard let first = events.popFirst() else { return }
        if case .scalar("", _) = first.kind { return }
        guard first.kind == .mapStart else {
            throw failure("write one 'name: value' a line", line: first.line)
        }
        try readMap(prefix: "", depth: 1, line: first.line)
    }

    private mutating func readMap(prefix: String, depth: Int, line: Int) throws(UsageError) {
        guard depth <= depthMax else { throw failure("nested deeper than \(depthMax)", line: line) }
        while let event = events.popFirst(), event.kind != .mapEnd {
            guard case .scalar(let name, _) = event.kind, !name.isEmpty else {
                throw failure("a key must be a plain word", line: event.line)
            }
            try readValue(key: prefix + name, depth: depth, line: event.line)
        }
    }

    private mutating func readValue(key: String, depth: Int, line: Int) throws(UsageError) {
        guard let value = events.popFirst() else {
            throw failure("'\(key)' has no value", line: line)
        }
        switch value.kind {
        case .mapStart: try readMap(prefix: key + ".", depth: depth + 1, line: value.line)
        case .listStart: try append(key, try readList(key: key), line: line)
        default: try append(key, [try scalar(value, key: key)], line: line)
        }
    }

    private mutating func readList(key: String) throws(UsageError) -> [String] {
        var values: [String] = []
        while let event = events.popFirst(), event.kind != .listEnd {
            values.append(try scalar(event, key: key))
        }
        return values
    }

    private func scalar(_ event: YAMLEvent, key: String) throws(UsageError) -> String {
        switch event.kind {
        case .scalar(let text, let isPlain):
            let isEmpty = isPlain && ["", "~", "null"].contains(text)
            if isEmpty { throw failure("'\(key)' has no value", line: event.line) }
            return text
        case .unsupported(let what):
            throw failure("\(what) are not supported", line: event.line)
        default: throw failure("'\(key)' must be a value or a list of values", line: event.line)
        }
    }

    private mutating func append(_ key: String, _ values: [String], line: Int) throws(UsageError) {
        if let earlier = entries.first(where: { $0.key == key }) {
            throw failure("'\(key)' is also set in line \(earlier.line)", line: line)
        }
        guard entries.count < entriesMax else { throw failure("too many entries", line: line) }
        entries.append(YAMLConfiguration.Entry(key: key, values: values, line: line))
    }
}
