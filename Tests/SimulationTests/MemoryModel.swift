import FarMemory

/// What each page must hold, from the requests that were answered: the specification of far memory for a swap device.
///
/// A page's bytes are a function of its number and version, so stale, torn and crossed pages all look wrong. After a
/// store or discard that failed the content is unknown until the next store: the kernel keeps such a page itself and does
/// not read it back.
struct MemoryModel {
    enum Content: Equatable {
        case zeros
        case version(UInt64)
        case unknown
    }

    private(set) var pages: [Content]
    private var versions: UInt64 = 0

    init(pageCount: Int) { pages = [Content](repeating: .zeros, count: pageCount) }

    /// The pages of a range are all readable: the kernel would read them.
    func isReadable(_ pages: Range<Int>) -> Bool {
        self.pages[pages].allSatisfy { $0 != .unknown }
    }

    /// All pages of the range were stored, so that the kernel may want each back.
    func isStored(_ pages: Range<Int>) -> Bool {
        self.pages[pages].allSatisfy { if case .version = $0 { true } else { false } }
    }

    mutating func newVersion() -> UInt64 {
        versions += 1
        return versions
    }

    mutating func stored(_ range: Range<Int>, version: UInt64) {
        for page in range { pages[page] = .version(version) }
    }
    mutating func discarded(_ range: Range<Int>) {
        for page in range { pages[page] = .zeros }
    }
    mutating func failed(_ range: Range<Int>) {
        for page in range { pages[page] = .unknown }
    }

    static func word(page: Int, version: UInt64, index: Int) -> UInt64 {
        var random = SeededRandom(
            seed: version &* 0x1_0000_0001 ^ UInt64(page) << 20 ^ UInt64(index))
        return random.next() | 1
    }

    static func fill(
        _ bytes: UnsafeMutableRawPointer, page: Int, version: UInt64
    ) {
        for index in 0..<pageBytes / 8 {
            unsafe bytes.storeBytes(
                of: word(page: page, version: version, index: index), toByteOffset: index * 8,
                as: UInt64.self)
        }
    }

    /// What is wrong with a page that was read; nil when it is right.
    func problem(page: Int, bytes: UnsafeRawPointer) -> String? {
        for index in 0..<pageBytes / 8 {
            let got = unsafe bytes.load(fromByteOffset: index * 8, as: UInt64.self)
            let wanted: UInt64
            switch pages[page] {
            case .zeros: wanted = 0
            case .version(let version):
                wanted = Self.word(page: page, version: version, index: index)
            case .unknown: return nil
            }
            if got != wanted { return "page \(page) word \(index): \(diagnose(page, got))" }
        }
        return nil
    }

    /// Names the kind of corruption, by finding where the word comes from.
    private func diagnose(_ page: Int, _ got: UInt64) -> String {
        if got == 0 { return "lost: zeros instead of \(pages[page])" }
        for version in 0...versions {
            for other in pages.indices {
                for index in [0, 1, 511]
                where Self.word(page: other, version: version, index: index) == got {
                    return other == page
                        ? "stale: version \(version) instead of \(pages[page])"
                        : "crossed: page \(other), version \(version)"
                }
            }
        }
        return "torn or foreign: \(got) instead of \(pages[page])"
    }
}
