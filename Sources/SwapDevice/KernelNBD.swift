import CNetlinkShims

/// The kernel's own NBD client (nbd.ko), over generic netlink.
package enum KernelNBD {
    /// Whether the running kernel has it, loaded.
    package static var isAvailable: Bool { fm_nbd_probe() == 0 }
}
