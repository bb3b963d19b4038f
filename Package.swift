// swift-tools-version: 6.2
// One package, layered: the arrows of docs/architecture.md are the `dependencies:` below, and
// tools/layering fails when an import or a new arrow breaks them.

import PackageDescription

/// Every Swift target is built with these: Swift 6 mode, strict memory safety, no warnings.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

/// GNU-only interfaces are declared in C shims only; Swift never sees a feature-test macro.
let shim: [CSetting] = [
    .define("_GNU_SOURCE"),
    .treatAllWarnings(as: .error),
]

func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func shimTarget(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, cSettings: shim)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

/// `tools/fuzz` links the fuzz targets with libFuzzer from a static library, for SwiftPM renames main.
let products: [Product] =
    Context.environment["FARMEM_FUZZ"] == nil
    ? [] : [.library(name: "FuzzTargets", type: .static, targets: ["FuzzTargets"])]

let package = Package(
    name: "farmem",
    products: products,
    targets: [
        // C: shims and system libraries.
        shimTarget("CLinuxShims"),
        shimTarget("CWireFormat"),
        shimTarget("CHTTPShims", ["CMicrohttpd", "CCurl"]),
        shimTarget("CSwapShims"),
        shimTarget("CNetlinkShims", ["CNetlink"]),
        shimTarget("CVerbsShims", ["CRDMA", "CIBVerbs"]),
        .systemLibrary(name: "CNetlink", pkgConfig: "libnl-genl-3.0"),
        .systemLibrary(name: "CRDMA", pkgConfig: "librdmacm"),
        .systemLibrary(name: "CIBVerbs", pkgConfig: "libibverbs"),
        .systemLibrary(name: "CGnuTLS", pkgConfig: "gnutls"),
        .systemLibrary(name: "CMicrohttpd", pkgConfig: "libmicrohttpd"),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl"),
        .systemLibrary(name: "CYAML", pkgConfig: "yaml-0.1"),
        .systemLibrary(name: "CCgroup", pkgConfig: "libcgroup"),

        // Foundations: pure values, the operating system, what every command needs.
        library("FarMemory"),
        library("LinuxSystem", ["CLinuxShims"]),
        library("Verbs", ["CVerbsShims", "LinuxSystem"]),
        library("Telemetry", ["FarMemory"]),
        library("JSONText"),
        library("CommandLineKit", ["FarMemory", "LinuxSystem", "JSONText", "CYAML"]),
        library("HTTPEndpoint", [
            "CHTTPShims", "CMicrohttpd", "CCurl", "FarMemory", "LinuxSystem", "JSONText",
        ]),

        // Data plane: no Foundation, no async, nothing allocated per request.
        library("PoolProtocol", ["CWireFormat", "FarMemory"]),
        library("TransportSecurity", [
            "PoolProtocol", "LinuxSystem", "CLinuxShims", "CGnuTLS",
        ]),
        library("MemoryPool", ["FarMemory", "LinuxSystem", "CWireFormat"]),
        library("MemoryServer", [
            "MemoryPool", "TransportSecurity", "PoolProtocol", "LinuxSystem", "Telemetry",
            "FarMemory", "CGnuTLS", "CLinuxShims", "CVerbsShims", "Verbs",
        ]),
        library("Fabric", ["FarMemory"]),
        library("FabricShm", [
            "Fabric", "PoolProtocol", "LinuxSystem", "FarMemory", "CWireFormat", "CGnuTLS",
        ]),
        library("FabricNBD", [
            "Fabric", "TransportSecurity", "PoolProtocol", "LinuxSystem", "FarMemory",
            "CLinuxShims",
        ]),
        library("FabricRDMA", [
            "Fabric", "PoolProtocol", "Verbs", "LinuxSystem", "Telemetry", "FarMemory",
            "CVerbsShims", "CGnuTLS",
        ]),
        library("FabricDRAM", ["Fabric", "LinuxSystem", "FarMemory"]),
        library("FabricSimulator", ["Fabric", "FarMemory"]),
        library("SwapDevice", [
            "Fabric", "LinuxSystem", "Telemetry", "FarMemory", "CLinuxShims", "CSwapShims",
            "CNetlinkShims",
        ]),

        // Control plane: FoundationEssentials at most.
        library("Containers", ["LinuxSystem", "FarMemory", "CLinuxShims", "CCgroup"]),
        library("OffloadPolicy", ["FarMemory"]),
        library("OffloadEngine", [
            "OffloadPolicy", "Containers", "LinuxSystem", "Telemetry", "FarMemory", "JSONText",
        ]),
        library("ContainerDiscovery", [
            "Containers", "OffloadPolicy", "CommandLineKit", "HTTPEndpoint", "LinuxSystem",
            "Telemetry", "JSONText", "FarMemory",
        ]),
        library("PolicyOptions", ["OffloadPolicy", "CommandLineKit", "FarMemory"]),
        library("WorkloadTrace", ["FarMemory", "LinuxSystem"]),
        library("WorkloadSimulation", ["OffloadPolicy", "WorkloadTrace", "FarMemory"]),
        library("Gateway", ["HTTPEndpoint", "LinuxSystem", "Telemetry", "JSONText", "FarMemory"]),
        library("Measurement", [
            "WorkloadTrace", "Containers", "LinuxSystem", "CLinuxShims", "HTTPEndpoint", "JSONText",
            "FarMemory",
        ]),

        // Programs: wiring only.
        program("memserver", [
            "MemoryServer", "MemoryPool", "TransportSecurity", "PoolProtocol", "HTTPEndpoint", "CommandLineKit", "LinuxSystem", "Telemetry",
            "JSONText", "FarMemory",
        ]),
        program("farswap", [
            "SwapDevice", "Fabric", "FabricDRAM", "FabricShm", "FabricNBD", "FabricRDMA", "TransportSecurity",
            "PoolProtocol", "CommandLineKit", "LinuxSystem", "Telemetry", "JSONText", "FarMemory",
        ]),
        program("offloadd", [
            "OffloadEngine", "OffloadPolicy", "PolicyOptions", "ContainerDiscovery", "Containers",
            "HTTPEndpoint",
            "CommandLineKit",
            "LinuxSystem", "Telemetry", "JSONText", "FarMemory", "SwapDevice",
        ]),
        program("fngateway", [
            "Gateway", "Containers", "HTTPEndpoint", "CommandLineKit", "LinuxSystem", "Telemetry", "JSONText",
            "FarMemory",
        ]),
        program("farmem", [
            "SwapDevice", "FabricRDMA", "PoolProtocol",
            "HTTPEndpoint", "CommandLineKit", "Containers", "LinuxSystem", "Measurement",
            "OffloadPolicy", "PolicyOptions", "WorkloadSimulation", "WorkloadTrace", "Telemetry",
            "JSONText", "FarMemory",
        ]),

        // Tests.
        .target(
            name: "CAllocationCounter", path: "Tests/CAllocationCounter", cSettings: shim),
        .target(
            name: "TestSupport", dependencies: ["CAllocationCounter", "LinuxSystem", "FarMemory"],
            path: "Tests/TestSupport", swiftSettings: strict),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "CommandLineKit", "ContainerDiscovery", "Containers", "JSONText", "FarMemory",
                "LinuxSystem", "OffloadPolicy", "PoolProtocol",
                "SwapDevice", "WorkloadTrace",
            ],
            path: "Tests/Fuzz/Targets", swiftSettings: strict),
        tests("FuzzSeedTests", ["FuzzTargets", "LinuxSystem"]),
        tests("TestSupportTests", ["TestSupport", "LinuxSystem", "FarMemory"]),
        tests("FarMemoryTests", ["FarMemory"]),
        tests("LinuxSystemTests", ["LinuxSystem", "TestSupport"]),
        tests("JSONTextTests", ["JSONText"]),
        tests("CommandLineKitTests", [
            "CommandLineKit", "FarMemory", "JSONText", "LinuxSystem", "TestSupport",
        ]),
        tests("TelemetryTests", ["Telemetry", "FarMemory", "LinuxSystem", "TestSupport"]),
        tests("HTTPEndpointTests", [
            "HTTPEndpoint", "FarMemory", "JSONText", "LinuxSystem", "TestSupport",
        ]),
        tests("PoolProtocolTests", ["PoolProtocol", "FarMemory", "TestSupport"]),
        tests("MemoryPoolTests", ["MemoryPool", "LinuxSystem", "FarMemory", "TestSupport"]),
        tests("MemoryServerTests", [
            "MemoryPool",
            "MemoryServer", "PoolProtocol", "FarMemory", "LinuxSystem", "Telemetry", "TestSupport",
            "Fabric", "FabricNBD", "TransportSecurity", "CLinuxShims",
        ]),
        tests("FabricTests", [
            "Fabric", "FabricShm", "FabricNBD", "FabricSimulator", "MemoryServer", "MemoryPool",
            "PoolProtocol", "LinuxSystem", "FarMemory", "Telemetry", "TestSupport",
        ]),
        tests("SwapDeviceTests", [
            "SwapDevice", "Fabric", "FabricDRAM", "FabricShm", "FabricSimulator", "FarMemory",
            "LinuxSystem", "CNetlinkShims", "CSwapShims", "MemoryPool", "MemoryServer", "Telemetry",
            "TestSupport",
        ]),
        tests("ContainersTests", ["Containers", "TestSupport", "LinuxSystem", "FarMemory"]),
        tests("ContainerDiscoveryTests", [
            "ContainerDiscovery", "Containers", "OffloadPolicy", "HTTPEndpoint", "JSONText",
            "LinuxSystem", "FarMemory", "Telemetry", "TestSupport",
        ]),
        tests("OffloadPolicyTests", ["OffloadPolicy", "TestSupport", "FarMemory"]),
        tests("OffloadEngineTests", [
            "OffloadEngine", "Containers", "OffloadPolicy", "LinuxSystem", "FarMemory", "JSONText",
            "Telemetry", "TestSupport",
        ]),
        tests("WorkloadTraceTests", ["WorkloadTrace", "LinuxSystem", "FarMemory", "TestSupport"]),
        tests("MeasurementTests", ["Measurement", "Containers", "JSONText", "FarMemory"]),
        tests("WorkloadSimulationTests", [
            "WorkloadSimulation", "WorkloadTrace", "OffloadPolicy", "FarMemory", "TestSupport",
        ]),
        tests("GatewayTests", ["Gateway", "JSONText", "LinuxSystem", "FarMemory", "TestSupport"]),
        tests("SimulationTests", [
            "Fabric", "FabricSimulator", "FarMemory", "LinuxSystem", "SwapDevice",
            "WorkloadSimulation", "TestSupport",
        ]),
        tests("IntegrationTests", [
            "TestSupport", "LinuxSystem", "HTTPEndpoint", "JSONText", "FarMemory", "Fabric",
            "FabricShm", "PoolProtocol",
        ]),
    ]
)
