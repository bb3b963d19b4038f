package import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy

/// How pages are moved.
package enum EngineKind: String, CaseIterable, Sendable {
    /// Page maps and process_madvise: exact to the page, every kernel from 5.10.
    case generic
    /// The kernel's multi-generational lists.
    case mglru
}

/// Carries out what the policy decides. Belongs to the mover thread.
protocol PageEngine {
    /// Carries out one action that was issued at `epoch`; it ends early when the container's halt count is no longer that.
    func perform(_ action: Action, on container: EngineContainer, epoch: UInt64) -> ActionReport
    /// The sizes of the container's segments now; nil when they cannot be told.
    func segments(of container: EngineContainer) -> SegmentSizes?
    var reader: PageMapReader { get }
}

/// An action under way.
struct Pass {
    let container: EngineContainer
    let epoch: UInt64
    /// Swap entries whose page may still be in the swap cache; nil when unknown.
    var waiting: UInt64?
    /// Touching would not free them now.
    var mustNotTouch = false
    var isHalted: Bool { container.epoch != epoch }
}

/// Which engine runs, and why.
package struct EngineSelection: Equatable, Sendable {
    package var kind: EngineKind
    package var reason: String

    package init(kind: EngineKind, reason: String) {
        self.kind = kind
        self.reason = reason
    }

    /// Chooses between what the kernel has; `generic` and `mglru` say what is missing for each, or
    /// nil. Pure. Automatic prefers generic, for docs/decisions/0003 has it exact, and MGLRU takes file cache along.
    package static func choose(
        _ wanted: EngineChoice, generic: String?, mglru: String?
    ) throws(ControllerError) -> EngineSelection {
        switch wanted {
        case .generic:
            if let generic { throw .engineUnavailable(.generic, generic) }
            return EngineSelection(kind: .generic, reason: "asked for")
        case .mglru:
            if let mglru { throw .engineUnavailable(.mglru, mglru) }
            return EngineSelection(kind: .mglru, reason: "asked for")
        case .auto:
            if generic == nil {
                return EngineSelection(
                    kind: .generic, reason: "page maps and process_madvise are there: exact")
            }
            if mglru == nil {
                return EngineSelection(
                    kind: .mglru, reason: "not generic: \(generic ?? ""); MGLRU is on")
            }
            throw .engineUnavailable(.generic, "\(generic ?? ""); nor mglru: \(mglru ?? "")")
        }
    }

    /// Asks this kernel. What MGLRU needs is opened once, here, and kept for the mover: what was chosen cannot fail later.
    static func probe(
        _ wanted: EngineChoice, openGenerations: GenerationOpener
    ) throws(ControllerError) -> (EngineSelection, GenerationControl?) {
        var generic: String?
        do throws(SystemError) {
            try probePageAdvice()
        } catch {
            generic = error.description
        }
        var control: GenerationControl?
        var mglru: String?
        if wanted == .mglru || generic != nil {
            do throws(GenerationError) {
                control = try openGenerations()
            } catch {
                mglru = error.description
            }
        }
        let selection = try choose(wanted, generic: generic, mglru: mglru)
        return (selection, selection.kind == .mglru ? control : nil)
    }
}

/// Opens the kernel's generations; tests give others.
package typealias GenerationOpener = () throws(GenerationError) -> GenerationControl
