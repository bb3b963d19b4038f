/// The module's version marker until its first type lands.
package enum HTTPEndpointModule {}
