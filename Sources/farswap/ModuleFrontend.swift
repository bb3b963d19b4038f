import CommandLineKit
import FarMemory
import SwapDevice

/// What attach tells farmem.ko, from its options and the URL.
enum ModuleFrontend {
    static let onlyForModule =
        "dram:CAPACITY is memory that farmem.ko holds; give --frontend module"

    /// Nil when another frontend is to be used.
    static func setup(
        _ invocation: Invocation, _ source: FarMemoryURL
    ) throws(UsageError) -> KernelModule.Setup? {
        guard invocation.string("frontend") == "module" else {
            if case .moduleMemory = source.source { throw UsageError(onlyForModule) }
            return nil
        }
        if let option = AttachCommand.fuseOptions.first(where: { invocation.isGiven($0) }) {
            throw UsageError("--\(option) needs --frontend fuse")
        }
        let (name, size) = (invocation.string("name"), invocation.size("size"))
        guard name.utf8.count < 32 else {
            throw UsageError("--name: farmem.ko takes names of at most 31 characters")
        }
        switch source.source {
        case .moduleMemory(let capacity):
            guard capacity.bytes % UInt64(pageBytes) == 0, capacity > .zero, capacity <= size else {
                throw UsageError(
                    "'\(source.text)': the capacity is a multiple of 4KiB and at most --size")
            }
            var setup = KernelModule.Setup(name: name, backend: "dram", size: size)
            setup.capacity = capacity
            return setup
        case .shm, .nbd, .dram:
            throw UsageError("--frontend module takes dram:CAPACITY only; use fuse")
        }
    }
}
