import FarMemory

extension ByteCount: LogValue {}
extension Nanoseconds: LogValue {}
extension Endpoint: LogValue {}
