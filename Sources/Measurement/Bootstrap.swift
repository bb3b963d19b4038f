import FarMemory

/// A mean and the interval that holds it with 95 % confidence, by the percentile bootstrap: the values are drawn again with
/// replacement many times, and the middle of the means so found is taken.
package struct BootstrapMean: Equatable, Sendable {
    package var mean: Double
    package var low: Double
    package var high: Double

    /// Nil without values. Of one value nothing is known of the spread: the interval is the value.
    package init?(_ values: [Double], seed: UInt64, draws: Int = 2000) {
        guard !values.isEmpty else { return nil }
        var random = SeededRandom(seed: seed)
        let count = Double(values.count)
        mean = values.reduce(0, +) / count
        guard values.count > 1 else {
            low = mean
            high = mean
            return
        }
        var means: [Double] = []
        for _ in 0..<draws {
            var sum = 0.0
            for _ in values { sum += values[random.below(values.count)] }
            means.append(sum / count)
        }
        means.sort()
        low = means[Int(Double(draws) * 0.025)]
        high = means[min(draws - 1, Int(Double(draws) * 0.975))]
    }
}
