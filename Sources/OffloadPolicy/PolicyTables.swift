import FarMemory

// Ticks go over all containers ten times a second, so records lie in one array and are changed where they lie; names and
// handles are looked up in a dictionary only when an event comes. A record that leaves makes room for the last one.

/// The containers by handle.
package struct ContainerTable: Equatable, Sendable {
    private var places: [ContainerHandle: Int] = [:]
    /// Whom the last event was about: it is asked about again right after.
    private var lastID: ContainerHandle?
    private var lastPlace = 0
    private(set) var handles: [ContainerHandle] = []
    var records: [ContainerRecord] = []

    package var count: Int { records.count }
    package var isEmpty: Bool { records.isEmpty }

    package static func == (a: ContainerTable, b: ContainerTable) -> Bool {
        a.handles == b.handles && a.records == b.records
    }

    /// Handles in no particular order, but the same after the same events.
    package var keys: [ContainerHandle] { handles }

    package subscript(_ id: ContainerHandle) -> ContainerRecord? {
        places[id].map { records[$0] }
    }

    func place(of id: ContainerHandle) -> Int? {
        lastID == id ? lastPlace : places[id]
    }

    /// The same, and remembers it.
    mutating func placeNoted(of id: ContainerHandle) -> Int? {
        guard let place = place(of: id) else { return nil }
        lastID = id
        lastPlace = place
        return place
    }

    /// Lends all records, to change one where it lies, until `takeBack`: a copy would have its strings and lists counted, and the list of
    /// pending actions copied with its first change. Until then there are none here.
    mutating func lend() -> [ContainerRecord] {
        var lent: [ContainerRecord] = []
        swap(&lent, &records)
        return lent
    }

    mutating func takeBack(_ lent: inout [ContainerRecord]) { swap(&lent, &records) }

    mutating func insert(_ record: ContainerRecord, for id: ContainerHandle) {
        precondition(places[id] == nil, "a container begins twice")
        places[id] = records.count
        handles.append(id)
        records.append(record)
    }

    mutating func remove(at place: Int) {
        lastID = nil
        places[handles[place]] = nil
        let last = records.count - 1
        if place != last {
            records.swapAt(place, last)
            handles.swapAt(place, last)
            places[handles[place]] = place
        }
        records.removeLast()
        handles.removeLast()
    }
}

/// The functions by name. Names come from outside, so there is a bound: functions beyond it share one record.
package struct FunctionTable: Equatable, Sendable {
    static let capacity = 65_536

    private var places: [String: Int] = [:]
    var records: [FunctionRecord] = []

    package var count: Int { records.count }

    package subscript(_ name: String) -> FunctionRecord? { places[name].map { records[$0] } }

    mutating func place(of name: String, make: () -> FunctionRecord) -> Int {
        if let known = places[name] { return known }
        let place = min(records.count, Self.capacity)
        if place == records.count { records.append(make()) }
        if places.count <= Self.capacity { places[name] = place }
        return place
    }
}
