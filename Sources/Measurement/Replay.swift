package import FarMemory
import HTTPEndpoint
package import LinuxSystem
import Synchronization
package import WorkloadTrace

/// What became of one request.
package struct RequestResult: Equatable, Sendable {
    package enum Outcome: Equatable, Sendable {
        case right
        /// An answer that differs from the reference, or breaks the function's promise.
        case wrong(String)
        /// No answer, or another status than 200.
        case failed(String)
        /// Never sent: the replay was cancelled.
        case skipped
    }

    package var function: Int
    /// Sent during the warm-up: verified, and left out of the latencies.
    package var isWarmUp = false
    package var outcome: Outcome
    /// From the moment it was due to its answer.
    package var latency: Nanoseconds
    package var isCold: Bool
    /// Pages that the function had to wait for while it answered; nil when the agent did not say.
    package var majorFaults: Int?
}

/// The first answer to each request seed of each function, given without offloading: what every later one must equal.
package struct ReferenceAnswers: Sendable {
    private var bodies: [String: [UInt8]] = [:]
    /// Functions that did not answer as they should, and why. Nothing of theirs can be measured.
    package private(set) var failures: [String: String] = [:]

    package init() {}

    /// The function that a name stands for: `bert-low` is bert under another name, with containers of its own.
    package static func base(of name: String) -> String {
        String(name.prefix { $0 != "-" })
    }

    /// Asks for every answer once, of one of the names that stand for a function. Names whose function fails are in `failures`.
    package static func collect(
        functions: [String], seedsPerFunction: Int, gateway: Endpoint, cancellation: Cancellation
    ) -> ReferenceAnswers {
        var answers = ReferenceAnswers()
        let client = HTTPClient(target: gateway)
        var asked: [String: String] = [:]
        for name in functions {
            let function = base(of: name)
            if asked[function] == nil {
                do throws(ReplayError) {
                    for seed in 1...UInt64(seedsPerFunction) where !cancellation.isCancelled {
                        let body = try answer(client, name, seed)
                        answers.bodies["\(function)/\(seed)"] = body
                    }
                    asked[function] = ""
                } catch {
                    asked[function] = error.description
                }
            }
            if let failure = asked[function], !failure.isEmpty { answers.failures[name] = failure }
        }
        return answers
    }

    private static func answer(
        _ client: HTTPClient, _ name: String, _ seed: UInt64
    ) throws(ReplayError) -> [UInt8] {
        let response: HTTPResponse
        do throws(HTTPClientError) {
            response = try client.send(function: name, seed: seed)
        } catch {
            throw ReplayError("\(name): \(error)")
        }
        guard response.status == 200 else {
            throw ReplayError("\(name) answered \(response.status): \(response.text)")
        }
        if let fault = AnswerCheck.fault(of: base(of: name), seed: seed, response.body) {
            throw ReplayError("\(name): the answer to seed \(seed) \(fault)")
        }
        return response.body
    }

    /// Whether an answer is what the function gave first, and right in itself.
    package func verify(
        _ name: String, _ seed: UInt64, _ body: [UInt8]
    ) -> RequestResult.Outcome {
        let function = Self.base(of: name)
        if let fault = AnswerCheck.fault(of: function, seed: seed, body) { return .wrong(fault) }
        return body == bodies["\(function)/\(seed)"] ? .right : .wrong("differs from the reference")
    }
}

/// Why a measurement could not be made: one line.
package struct ReplayError: Error, Equatable, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

extension HTTPClient {
    /// One request of a function to the gateway.
    fileprivate func send(function: String, seed: UInt64) throws(HTTPClientError) -> HTTPResponse {
        try request(
            "POST", "/function/\(function)", headers: [("Content-Type", "application/json")],
            body: Array("{\"seed\":\(seed)}".utf8), timeout: .seconds(90))
    }
}

/// Sends a schedule's requests when they are due, whatever became of earlier ones.
package struct Replay: Sendable {
    package var schedule: RequestSchedule
    package var gateway: Endpoint
    package var reference: ReferenceAnswers
    /// Requests due before this are warm-up.
    package var warmUp = Nanoseconds.zero
    /// Requests under way at a time. A request that finds all busy is late, and its latency says so.
    package var workers = 64

    package init(schedule: RequestSchedule, gateway: Endpoint, reference: ReferenceAnswers) {
        self.schedule = schedule
        self.gateway = gateway
        self.reference = reference
    }

    /// Replays to the end, or until cancelled. One result per request, in the schedule's order. `progress` gets the number of
    /// requests sent, now and then, on one of the workers.
    package func run(
        cancellation: Cancellation, progress: @escaping @Sendable (Int) -> Void = { _ in }
    ) throws(SystemError) -> [RequestResult] {
        let board = Board(count: schedule.requests.count)
        let start = monotonicNow() + 200_000_000
        var threads: [WorkerThread] = []
        for _ in 0..<min(workers, schedule.requests.count) {
            threads.append(
                try WorkerThread("replay") {
                    let client = HTTPClient(target: gateway)
                    while let index = board.next(
                        schedule, start: start, cancellation: cancellation)
                    {
                        let result = send(schedule.requests[index], client, start: start)
                        board.set(index, result)
                        if index % 16 == 0 { progress(index) }
                    }
                })
        }
        for thread in threads { thread.join() }
        return board.results(schedule)
    }

    private func send(
        _ request: ScheduledRequest, _ client: HTTPClient, start: Int64
    ) -> RequestResult {
        var result = RequestResult(
            function: request.function, isWarmUp: request.due < warmUp, outcome: .skipped,
            latency: .zero, isCold: false)
        let due = start + request.due.nanoseconds
        let function = schedule.functions[request.function]
        do throws(HTTPClientError) {
            let response = try client.send(function: function, seed: request.seed)
            result.latency = Nanoseconds(monotonicNow() - due)
            result.isCold = response.header("X-Farmem-Cold") == "1"
            result.majorFaults = response.header("X-Farmem-Major-Faults").flatMap { Int($0) }
            result.outcome =
                response.status == 200
                ? reference.verify(function, request.seed, response.body)
                : .failed("status \(response.status): \(response.text.prefix(200))")
        } catch {
            result.latency = Nanoseconds(monotonicNow() - due)
            result.outcome = .failed("\(error)")
        }
        return result
    }

    /// Hands out the requests and takes the results.
    private final class Board: Sendable {
        private let taken = Mutex(0)
        private let done: Mutex<[RequestResult?]>

        init(count: Int) {
            done = Mutex(Array(repeating: nil, count: count))
        }

        /// The next request, when it is due; nil after the last, or when cancelled. One worker waits for its time and the others for it:
        /// all of them looking at the clock would be most of what an idle minute costs.
        func next(
            _ schedule: RequestSchedule, start: Int64, cancellation: Cancellation
        ) -> Int? {
            taken.withLock { taken in
                guard taken < schedule.requests.count else { return nil }
                let due = start + schedule.requests[taken].due.nanoseconds
                while true {
                    if cancellation.isCancelled { return nil }
                    let left = due - monotonicNow()
                    if left <= 0 { break }
                    sleepNanoseconds(min(left, 200_000_000))
                }
                defer { taken += 1 }
                return taken
            }
        }

        func set(_ index: Int, _ result: RequestResult) { done.withLock { $0[index] = result } }

        func results(_ schedule: RequestSchedule) -> [RequestResult] {
            done.withLock { $0 }.enumerated().map { index, result in
                result
                    ?? RequestResult(
                        function: schedule.requests[index].function, outcome: .skipped,
                        latency: .zero, isCold: false)
            }
        }
    }
}
