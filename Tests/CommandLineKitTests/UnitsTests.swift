import CommandLineKit
import FarMemory
import Testing

@Suite struct UnitsTests {
    @Test func sizes() throws {
        #expect(try Units.size("0B") == .zero)
        #expect(try Units.size("4096B") == .kib(4))
        #expect(try Units.size("1.5KiB") == ByteCount(1536))
        #expect(try Units.size("16777215TiB").bytes == 16_777_215 << 40)
        for wrong in [
            "", "4", "4GB", "4gib", "GiB", "-1GiB", "+1GiB", "1.GiB", ".5GiB", "1..5GiB", "1 GiB",
            "0.3B", "0.0001KiB", "16777216TiB", "99999999999999999999B", "1e3KiB",
            "1.0000000001GiB",
            "٤GiB",
        ] {
            #expect(throws: UnitError.self, "\(wrong)") { try Units.size(wrong) }
        }
    }

    @Test func durationsAndRates() throws {
        #expect(try Units.duration("250us") == .microseconds(250))
        #expect(try Units.duration("0.5h") == .seconds(1800))
        #expect(try Units.duration("106751d").nanoseconds == 106_751 * 86_400_000_000_000)
        #expect(try Units.rate("64MiB/s") == .mib(64))
        for wrong in ["10", "10sec", "10s ", "-1s", "106752d", "0.1ns"] {
            #expect(throws: UnitError.self, "\(wrong)") { try Units.duration(wrong) }
        }
        for wrong in ["64MiB", "64/s", "MiB/s", "/s", "64MiB/S"] {
            #expect(throws: UnitError.self, "\(wrong)") { try Units.rate(wrong) }
        }
    }

    @Test func ratiosAndIntegers() throws {
        #expect(try Units.ratio("0") == 0)
        #expect(try Units.ratio("1") == 1)
        #expect(try Units.ratio("99%") == 0.99)
        #expect(try ValueKind.ratio.parse("0.00001%").text == "0.0000001")
        #expect(try ValueKind.ratio.parse("100%").text == "1")
        for wrong in [
            "", "%", "1.1", "101%", "-0.1", ".5", "nan", "inf", "1e-1", "0.0000000001",
            "0.00000001%", "1.", "0.5.5", "0x1",
        ] {
            #expect(throws: UnitError.self, "\(wrong)") { try Units.ratio(wrong) }
        }
        #expect(try Units.integer("-5", in: -5...5) == -5)
        for wrong in ["", "6", "+1", "1.0", "0x1", " 1", "99999999999999999999"] {
            #expect(throws: UnitError.self, "\(wrong)") { try Units.integer(wrong, in: -5...5) }
        }
    }

    @Test func endpoints() throws {
        #expect(try Units.endpoint("unix:/run/a") == .unix(path: "/run/a"))
        #expect(try Units.endpoint("unix:///run/a") == .unix(path: "/run/a"))
        #expect(try Units.endpoint("tcp:localhost:1") == .tcp(host: "localhost", port: 1))
        #expect(try Units.endpoint("tcp://[::1]:65535") == .tcp(host: "::1", port: 65535))
        #expect(try Units.endpoint("10.0.0.1:80") == .tcp(host: "10.0.0.1", port: 80))
        for wrong in [
            "", "unix:", "unix://run", "host", ":80", "host:", "host:65536", "host:-1", "host:+1",
            "::1:80",
            "[]:80",
            "http://host:80", "unix:/" + String(repeating: "a", count: 107), "a b:1",
        ] {
            #expect(throws: UnitError.self, "\(wrong)") { try Units.endpoint(wrong) }
        }
    }

    @Test func endpointsKnowWhetherTheyAreLocal() {
        for local in ["unix:/x", "127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"] {
            #expect((try? Units.endpoint(local))?.isLocal == true, "\(local)")
        }
        for remote in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "127.evil.example:1", "128.0.0.1:1"] {
            #expect((try? Units.endpoint(remote))?.isLocal == false, "\(remote)")
        }
    }

    /// What is printed must be readable: reports and `--print-config` depend on it.
    @Test func everyValueReadsBackFromItsText() throws {
        var random = SeededRandom(seed: 7)
        for _ in 0..<2000 {
            let size = ByteCount(random.next() >> UInt64(random.below(64)))
            #expect(try Units.size("\(size)") == size)
            let duration = Nanoseconds(Int64(random.next() >> UInt64(1 + random.below(63))))
            #expect(try Units.duration("\(duration)") == duration)
        }
    }

    @Test func nearestNames() {
        #expect(nearestName(to: "capcity", among: ["slab", "capacity"]) == "capacity")
        #expect(nearestName(to: "zzzzzz", among: ["slab", "capacity"]) == nil)
        #expect(nearestName(to: "", among: []) == nil)
    }

    @Test func tablesAlignAndKeepControlCharactersOut() {
        var table = TextTable([.init("NAME"), .right("MiB")])
        table.append(["web\u{1B}[0m", "1.5"])
        table.append(["b", "100.0"])
        #expect(table.rendered() == "NAME       MiB\nweb?[0m    1.5\nb        100.0\n")
    }

    @Test func fixedDecimals() {
        #expect(fixed(3.14159, 2) == "3.14")
        #expect(fixed(-0.05, 1) == "-0.1" || fixed(-0.05, 1) == "-0.0")
        #expect(fixed(2, 0) == "2")
        #expect(fixed(0.004, 3) == "0.004")
        #expect(fixed(.nan, 1) == "-")
    }
}
