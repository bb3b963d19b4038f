/// The components of a path, without empty ones, as the kernel splits it: at the byte `/`. A text's characters would not do,
/// since a combining or prepending scalar beside a slash makes one character of both, and `..` could hide behind it.
package func pathComponents(_ path: String) -> [Substring] {
    path.utf8.split(separator: UInt8(ascii: "/")).map(Substring.init)
}

/// Whether a path begins at the root, whatever character its slash is part of.
package func isAbsolutePath(_ path: String) -> Bool { path.utf8.first == UInt8(ascii: "/") }
