import Synchronization

/// Collects numbers from several threads.
final class Statuses: Sendable {
    private let values = Mutex<[Int]>([])
    func add(_ value: Int) { values.withLock { $0.append(value) } }
    var all: [Int] { values.withLock { $0.sorted() } }
}
