"""Tests of the experiments' own code. They measure nothing: a stand-in writes the reports that farmem would."""

import fcntl
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import bench
import findings
import loads
import report
import stats
import tables
import virtual


class Loads(unittest.TestCase):
    def test_the_same_seed_gives_the_same_arrivals(self):
        self.assertEqual(loads.high(3, "bert", 2000), loads.high(3, "bert", 2000))
        self.assertNotEqual(loads.high(3, "bert", 2000), loads.high(4, "bert", 2000))
        self.assertNotEqual(loads.high(3, "bert", 2000), loads.high(3, "web", 2000))

    def test_load_classes_are_what_they_are_called(self):
        day = 86400.0
        self.assertGreater(len(loads.high(1, "bert", day)), loads.HIGH_FROM_PER_DAY)
        self.assertLess(len(loads.low(1, "bert", day)), loads.HIGH_FROM_PER_DAY)
        for kind in loads.SHAPE_NAMES:
            times = loads.shape(1, kind, "bert", day, 60.0)
            mean = day / len(times)
            self.assertTrue(40 < mean < 220, (kind, mean))
            self.assertEqual(times, sorted(times))

    def test_reuse_percentile_is_of_a_pool_of_containers(self):
        # Every 10 s one request that takes 1 s: idle for 9.
        self.assertAlmostEqual(loads.reuse_percentile(range(0, 200, 10), 1.0, 0.99), 9.0)
        # Two at once need two containers; the one that ended last is taken first.
        self.assertAlmostEqual(loads.reuse_percentile([0, 0, 100, 300], 1.0, 0.99), 199.0)
        self.assertIsNone(loads.reuse_percentile([0, 1000], 1.0, 0.99))

    def test_a_trace_is_read_as_published_and_a_bad_line_is_named(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "trace.csv"
            path.write_text("app,func,end_timestamp,duration\na,f,10,1\na,g,20,1\na,f,30,5\n")
            self.assertEqual(loads.azure2021(path, 0, 5, 100), [4, 20])
            self.assertEqual(loads.azure2021(path, 1, 0, 100), [19])
            with self.assertRaisesRegex(ValueError, "none of rank 2"):
                loads.azure2021(path, 2, 0, 100)
            path.write_text("app,func,end_timestamp,duration\na,f,10,1\na,f,x,1\n")
            with self.assertRaisesRegex(ValueError, "trace.csv:3"):
                loads.azure2021(path, 0, 0, 100)


class Statistics(unittest.TestCase):
    def test_percentiles_are_nearest_rank(self):
        self.assertEqual(stats.percentile(range(1, 101), 95), 95)
        self.assertEqual(stats.percentile([7], 50), 7)
        self.assertIsNone(stats.percentile([], 50))
        self.assertIsNone(stats.mean([]))

    def test_a_bootstrap_holds_the_statistic(self):
        low, high = stats.bootstrap([[1, 2, 3, 4, 5, 6]], stats.mean)
        self.assertTrue(1 < low < 3.5 < high < 6)

    def test_the_busiest_window_is_found_wherever_it_begins(self):
        moments = list(range(0, 5000, 200))
        counts = [0 if moment <= 1600 else min(100, (moment - 1600) / 10) for moment in moments]
        self.assertAlmostEqual(stats.windows_max(moments, counts, 1000), 100)
        self.assertAlmostEqual(stats.windows_max(moments, [moment / 10 for moment in moments], 1000), 100)
        self.assertIsNone(stats.windows_max([0, 100], [0, 5], 1000))
        self.assertIsNone(stats.windows_max([0, 2000], [None, None], 1000))


class Tables(unittest.TestCase):
    def test_unknown_is_a_dash_not_zero(self):
        self.assertIn("| a | - | 0 |", tables.markdown(["x", "y", "z"], [["a", None, 0]]))
        self.assertIn(r"50\% \& more", tables.latex(["x"], [["50% & more"]]))


class Verdicts(unittest.TestCase):
    def rows(self, checks, problem=None):
        found = {"diverse-benchmarks": {"summary": {"checks": checks} if checks is not None else None, "problem": problem, "status": {}}}
        return {row[0]: row[4] for row in report.verdicts(found)}

    def test_a_miss_is_a_miss_and_nothing_is_not_run(self):
        self.assertEqual(self.rows([{"id": "memory", "figure": "1", "pass": True}])["memory"], "PASS")
        self.assertEqual(self.rows([{"id": "memory", "figure": "1", "pass": False}])["memory"], "MISS")
        self.assertEqual(self.rows([{"id": "memory", "figure": "1", "pass": True}, {"id": "memory", "figure": "2", "pass": False}])["memory"], "MISS")
        self.assertEqual(self.rows([{"id": "memory", "figure": "1", "pass": None}])["memory"], "not decided")
        self.assertEqual(self.rows(None, "it broke")["memory"], "not run")
        self.assertEqual(self.rows([])["density"], "not run")


class Machine(unittest.TestCase):
    def test_a_report_whose_results_are_elsewhere_keeps_its_machine(self):
        with tempfile.TemporaryDirectory() as scratch:
            file = pathlib.Path(scratch) / "REPORT.md"
            self.assertEqual(report.machine_line({}, scratch, file), "unknown: nothing was measured")
            for end in ("", " The run took 43 minutes."):
                file.write_text(f"# Report\n\nMachine: 2 processors, Linux 6.18.4; git abc.{end}\n\nMore.\n")
                self.assertEqual(report.machine_line({}, scratch, file), "2 processors, Linux 6.18.4; git abc")


class Runs(unittest.TestCase):
    """All experiments from the command line to the report."""

    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.output = pathlib.Path(self.scratch.name) / "out"
        self.log = pathlib.Path(self.scratch.name) / "asked"

    def run_all(self, *words, fault="", status=0):
        environment = dict(os.environ, FARMEM_BIN_DIR=str(HERE / "programs"), FARMEM_LAB=str(HERE / "programs" / "lab"), FAKE_LOG=str(self.log),
                           FAKE_FAULT=fault)
        done = subprocess.run([str(HERE.parent / "run-all"), "--output", str(self.output), *words], env=environment, capture_output=True, text=True, timeout=280)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        return done

    def asked(self):
        return self.log.read_text().count("\n") if self.log.exists() else 0

    def own(self):
        """Those that run farmem bench functions, which is what the stand-in can do."""
        return ["diverse-benchmarks", "diverse-workloads", "ablation", "pucket-overhead", "runtime-pucket-check", "colocation", "wake-up",
                "bandwidth-budget", "density"]

    def test_every_experiment_measures_draws_and_reports_once(self):
        only = [word for name in self.own() for word in ("--only", name)]
        done = self.run_all(*only)
        for name in self.own():
            summary = json.loads((self.output / name / "summary.json").read_text())
            self.assertTrue(summary["figures"], name)
            for file, _ in summary["figures"]:
                self.assertGreater((self.output / name / file).stat().st_size, 5000, file)
                self.assertTrue((self.output / name / file).with_suffix(".pdf").exists())
            self.assertTrue(any((self.output / name).glob("*.tex")), name)
        text = (self.output / "REPORT.md").read_text()
        self.assertIn("**PASS** |", text)
        self.assertIn("semi-warm", text)
        # The formula takes what diverse-benchmarks measured.
        density = json.loads((self.output / "density" / "summary.json").read_text())
        self.assertIn("by formula", density["ours"])
        self.assertNotIn("| - |", (self.output / "density" / "table.md").read_text())
        self.assertIn("PASS         bandwidth budget", done.stdout)
        # 20 ms and 9 ms more are no factor of three.
        self.assertIn("MISS         wake-up", done.stdout)
        self.assertIn("not run      policy core", done.stdout)
        # Two of diverse-benchmarks' three runs serve colocation, one both of the Pucket's; density and diverse-workloads have three.
        count = self.asked()
        self.assertEqual(count, 13)
        self.run_all(*only)
        self.assertEqual(self.asked(), count, "measured again what was there")
        self.run_all("--only", "ablation", "--seed", "2")
        self.assertEqual(self.asked(), count + 1)

    def test_a_wrong_response_rejects_the_result(self):
        done = self.run_all("--only", "ablation", fault="wrong", status=1)
        self.assertIn("rejected", done.stderr)
        self.assertTrue(list((self.output / "ablation" / "rejected").glob("*.json")))
        self.assertFalse(list((self.output / "ablation" / "results").glob("*.json")))
        self.assertIn("**Not run:**", (self.output / "REPORT.md").read_text())

    def test_a_function_that_fails_is_reported_and_not_averaged_in(self):
        self.run_all("--only", "diverse-benchmarks", fault="broken:web-high")
        summary = json.loads((self.output / "diverse-benchmarks" / "summary.json").read_text())
        self.assertTrue(any("web-high under farmem is not averaged in" in note for note in summary["notes"]))
        memory = next(check for check in summary["checks"] if check["id"] == "memory")
        self.assertIsNone(memory["pass"])
        text = (self.output / "diverse-benchmarks" / "table.md").read_text()
        self.assertIn("| web | high | - | - |", text)

    def test_a_policy_that_cannot_run_is_said_and_the_row_is_not_decided(self):
        self.run_all("--only", "diverse-benchmarks", fault="problem:damon")
        summary = json.loads((self.output / "diverse-benchmarks" / "summary.json").read_text())
        self.assertTrue(any("damon was not run" in note for note in summary["notes"]))
        memory = next(check for check in summary["checks"] if check["id"] == "memory")
        self.assertIsNot(memory["pass"], True)

    def test_a_failed_run_leaves_no_figures_of_an_earlier_one_in_the_report(self):
        self.run_all("--only", "ablation")
        self.run_all("--only", "ablation", "--seed", "9", fault="refuse", status=1)
        text = (self.output / "REPORT.md").read_text()
        self.assertIn("ended with 71: farmem: no", text)
        self.assertNotIn("## Ablation", text)

    def test_smoke_is_small(self):
        self.run_all("--smoke")
        self.assertEqual(self.asked(), 3)

    def test_told_to_end_it_ends_what_it_started(self):
        environment = dict(os.environ, FARMEM_BIN_DIR=str(HERE / "programs"), FAKE_LOG=str(self.log), FAKE_FAULT="hang")
        words = [str(HERE.parent / "run-all"), "--output", str(self.output), "--only", "ablation"]
        with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as run:
            deadline = time.monotonic() + 60
            while not self.asked() and time.monotonic() < deadline:
                time.sleep(0.05)
            run.terminate()
            said = run.communicate(timeout=60)[1]
        self.assertIn("interrupted", said)
        self.assertEqual(run.returncode, 1)
        lock = open(self.output / ".lock")
        self.addCleanup(lock.close)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_wrong_use_is_64(self):
        self.run_all("--only", "nothing", status=64)
        self.run_all("--virtual", "--only", "density", status=64)
        self.run_all("--virtual", "--full", status=64)

    def test_virtual_time_has_memory_and_pages_and_no_latency(self):
        self.run_all("--virtual")
        count = self.asked()
        self.assertEqual(count, len(virtual.EXPERIMENTS))
        self.assertIn("--duration 3600s --warm-up 600s --speedup 1 ", self.log.read_text())
        self.assertIn("--keep-alive 600000ms", self.log.read_text())
        for name in virtual.EXPERIMENTS:
            directory = self.output / "virtual" / name
            file, = (directory / "results").glob("*.json")
            result = json.loads(file.read_text())
            self.assertIs(result["virtual"], True)
            self.assertEqual(result["configuration"]["virtual"]["kernel"], "source-fake/build-default-fake")
            self.assertNotIn("latency", file.read_text())
            self.assertNotIn("_us\"", file.read_text())
            self.assertTrue(result["report"]["phases"][1]["decisions"])
            for text in directory.glob("*.md"):
                self.assertIsNone(re.search(r"\bms\b|p95|P95", text.read_text()), text)
            for figure, _ in json.loads((directory / "summary.json").read_text())["figures"]:
                self.assertGreater((directory / figure).stat().st_size, 5000, figure)
                self.assertTrue((directory / figure).with_suffix(".pdf").exists())
        text = (self.output / "REPORT.md").read_text()
        section = text[text.index("## Virtual time"):]
        self.assertIn("| float-high | Farmem |", section)
        self.assertIn("latencies of virtual time mean nothing", section)
        # It decides nothing that real time decides.
        self.assertNotIn("**PASS**", text)
        self.run_all("--virtual")
        self.assertEqual(self.asked(), count, "measured again what was there")

    def test_real_and_virtual_time_do_not_replace_each_other(self):
        self.run_all("--only", "diverse-benchmarks")
        real = (self.output / "diverse-benchmarks" / "summary.json").read_text()
        self.run_all("--virtual", "--smoke")
        self.assertEqual((self.output / "diverse-benchmarks" / "summary.json").read_text(), real)
        text = (self.output / "REPORT.md").read_text()
        self.assertIn("run-all --lite`", text)
        self.assertIn("## Diverse benchmarks", text)
        self.assertIn("### Diverse benchmarks", text)
        self.run_all("--report-only")
        self.assertIn("### Diverse benchmarks", (self.output / "REPORT.md").read_text())

    def test_a_wrong_response_in_virtual_time_rejects_the_result(self):
        done = self.run_all("--virtual", "--only", "ablation", fault="wrong", status=1)
        self.assertIn("rejected", done.stderr)
        self.assertFalse(list((self.output / "virtual" / "ablation" / "results").glob("*.json")))


class Aliases(unittest.TestCase):
    def test_a_function_gets_another_name_and_its_own_directory(self):
        with bench.Aliases(["float-low", "float"]) as directory:
            self.assertEqual(json.loads((directory / "float-low" / "manifest.json").read_text())["name"], "float-low")
            self.assertTrue((directory / "agent" / "agent.py").exists())
        self.assertFalse(directory.exists())
        with self.assertRaises(bench.NotRun):
            with bench.Aliases(["nothing-low"]):
                pass


class Findings(unittest.TestCase):
    def result(self, outcome="right"):
        def phase(policy, local, latency):
            return {"policy": policy, "problem": None, "memory": {"bert-low": {"local_bytes_mean": local, "far_bytes_mean": 0}}, "decisions": [],
                    "timeline": {"ms": [0, 1000, 2000], "functions": {"bert-low": {"local_bytes": [local] * 3}}},
                    "requests": [{"function": "bert-low", "due_ms": 0, "latency_us": latency, "cold": False, "warm_up": False, "outcome": "right", "major_faults": 0},
                                 {"function": "bert-low", "due_ms": 5, "latency_us": latency, "cold": False, "warm_up": True, "outcome": outcome, "major_faults": 0}]}
        return {"configuration": {"speedup": 1}, "report": {"functions": ["bert-low"], "warm_up_ms": 0,
                                                            "phases": [phase("none", 100, 1000), phase("farmem", 25, 1040)]}}

    def test_figures_against_the_reference(self):
        data = findings.Findings(self.result())
        self.assertAlmostEqual(data.saved("farmem", "bert-low"), 0.75)
        self.assertAlmostEqual(data.change("farmem", "bert-low"), 0.04)

    def test_an_interval_draws_requests_and_not_latencies(self):
        # Requests differ by a factor of forty, the policies by 2 %: what differs between requests is none of the policies'.
        result = self.result()
        for phase, factor in zip(result["report"]["phases"], (1, 1.02)):
            phase["requests"] = [{"function": "bert-low", "due_ms": 100 * number, "latency_us": 1000 * (1 + number) * factor, "cold": False, "warm_up": False,
                                  "outcome": "right", "major_faults": 0} for number in range(40)]
        data = findings.Findings(result)
        for change, (low, high) in [(data.change("farmem", "bert-low"), data.change_interval("farmem", "bert-low")),
                                    data.pooled_change("farmem", ["bert-low"])]:
            for value in (change, low, high):
                self.assertAlmostEqual(value, 0.02)
        # Those that wait for each other are one event.
        for phase, slow in zip(result["report"]["phases"], (5000, 8000)):
            for request in phase["requests"][-5:]:
                request["latency_us"] = 1000 * slow
        queued = findings.Findings(result).events("farmem", ["bert-low"])
        self.assertEqual(sorted(len(event) for event in queued)[-1], 5)
        self.assertEqual(sum(len(event) for event in queued), 40)
        # One that got no answer leaves its function without figures.
        result["report"]["phases"][1]["requests"][0]["outcome"] = "failed"
        self.assertEqual(findings.Findings(result).pooled_change("farmem", ["bert-low"]), (None, None))

    def test_requests_that_waited_for_far_memory_are_told_apart(self):
        result = self.result()
        for phase, slow in zip(result["report"]["phases"], (1, 9)):
            phase["requests"] = [{"function": "bert-low", "due_ms": 100 * number, "latency_us": 1000 * (slow if number % 4 == 0 else 1), "cold": False,
                                  "warm_up": False, "outcome": "right", "major_faults": 30 if slow > 1 and number % 4 == 0 else 0} for number in range(40)]
        data = findings.Findings(result)
        self.assertAlmostEqual(data.pooled_change("farmem", ["bert-low"])[0], 8)
        self.assertEqual(data.change_by_faults("farmem", ["bert-low"], 20), (0.25, 0))
        self.assertEqual(data.change_by_faults("farmem", ["bert-low"], 30)[0], 0)

    def test_virtual_time_refuses_to_speak_of_latency(self):
        data = findings.Findings(dict(self.result(), virtual=True))
        self.assertAlmostEqual(data.saved("farmem", "bert-low"), 0.75)
        for ask in (lambda: data.latency("farmem", "bert-low", 95), lambda: data.change("farmem", "bert-low"),
                    lambda: data.pooled_change("farmem", ["bert-low"]), lambda: data.change_interval("farmem", "bert-low")):
            with self.assertRaises(ValueError):
                ask()

    def test_a_request_that_failed_in_the_warm_up_counts(self):
        data = findings.Findings(self.result("failed"))
        self.assertIsNone(data.saved("farmem", "bert-low"))
        self.assertIsNone(data.change("farmem", "bert-low"))
        self.assertTrue(data.troubles())


if __name__ == "__main__":
    unittest.main()
