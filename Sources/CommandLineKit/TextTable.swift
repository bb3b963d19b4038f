/// A table for people: aligned columns, a heading, two spaces between. Widths count characters.
package struct TextTable: Sendable {
    package struct Column: Sendable {
        package enum Alignment: Sendable { case left, right }

        package let title: String
        package let alignment: Alignment

        package init(_ title: String, _ alignment: Alignment = .left) {
            self.title = title
            self.alignment = alignment
        }

        /// For numbers.
        package static func right(_ title: String) -> Column { Column(title, .right) }
    }

    package let columns: [Column]
    package private(set) var rows: [[String]] = []

    package init(_ columns: [Column]) { self.columns = columns }

    /// Adds a row with one cell per column. Control characters are shown as '?', so that a name cannot spoil the terminal.
    package mutating func append(_ row: [String]) {
        precondition(row.count == columns.count, "a row needs one cell per column")
        rows.append(row.map(Self.printable))
    }

    private static func printable(_ cell: String) -> String {
        String(
            String.UnicodeScalarView(
                cell.unicodeScalars.map {
                    $0.properties.generalCategory == .control ? "?" : $0
                }))
    }

    /// The table as text with a newline after each line; only the heading when there are no rows.
    package func rendered() -> String {
        var widths = columns.map(\.title.count)
        for row in rows {
            for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.count) }
        }
        return ([columns.map(\.title)] + rows).map { line($0, widths: widths) }.joined()
    }

    private func line(_ cells: [String], widths: [Int]) -> String {
        var line = ""
        for (index, cell) in cells.enumerated() {
            if index > 0 { line += "  " }
            let fill = String(repeating: " ", count: widths[index] - cell.count)
            line += columns[index].alignment == .right ? fill + cell : cell + fill
        }
        while line.last == " " { line.removeLast() }
        return line + "\n"
    }
}

/// A number with a fixed count of decimals, without Foundation: `fixed(3.14159, 2)` is `3.14`; `-` when it is not finite.
package func fixed(_ value: Double, _ decimals: Int) -> String {
    precondition((0...9).contains(decimals), "0 to 9 decimals")
    guard value.isFinite, abs(value) < 1e9 else { return value.isFinite ? "\(value)" : "-" }
    var scale = 1.0
    for _ in 0..<decimals { scale *= 10 }
    let scaled = Int64((value * scale).rounded())
    guard decimals > 0 else { return "\(scaled)" }
    let digits = "\(scaled.magnitude)"
    let filled = String(repeating: "0", count: max(0, decimals + 1 - digits.count)) + digits
    return (scaled < 0 ? "-" : "") + filled.dropLast(decimals) + "." + filled.suffix(decimals)
}
