"""Loads of PubSub and Queue that go on through all kills: the load generator keeps the books of its messages and judges them."""

import json
import signal
import subprocess
import time

# The load generator waits itself for so long until a message that was acknowledged has come, and a little for leases to end.
DRAIN_SECONDS = 60
END_SECONDS_MAX = 2 * DRAIN_SECONDS + 60


class MessageLoad:
    """Messages that are sent at the first gateway and received at the last one, at `strong`."""

    def __init__(self, stage, kind, namespace, more, rate):
        self.stage, self.kind, self.namespace = stage, kind, namespace
        self.report = stage.folder / f"{kind}.json"
        self.log = stage.folder / f"{kind}.log"
        self.command = [str(stage.options.loadgen), "-n", namespace, f"--{kind}", "--target", stage.gateways[0].address]
        self.command += ["--receive-at", stage.gateways[-1].address, "--durability", "strong", "--value", "100", "--rate", str(rate)]
        self.command += ["--warm-up", "0s", "--duration", "1000m", "--drain", f"{DRAIN_SECONDS}s", "--deadline", "8s", "--crashes", "--quiet"]
        self.command += ["--seed", str(stage.random.randrange(1 << 32)), "--json", str(self.report), *more]
        self.process = None

    def start(self):
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def finish(self):
        """No more is sent; waits until everything that was acknowledged has come. Returns what was counted, for people."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = f"none within {END_SECONDS_MAX} s"
        text = self.log.read_text(errors="replace")[-2500:]
        if status != 0 or not self.report.exists():
            self.stage.problems.append(f"the load of {self.kind} ended with status {status}:\n{text}")
            return f"{self.kind}: failed"
        found = json.loads(self.report.read_text())
        sent = found["acknowledged"] if self.kind == "queue" else found["published"]["count"]
        came = found["done_in_all"] if self.kind == "queue" else found["delivered"]["count"]
        # The load generator has judged each message. Of a few acks nobody knows whether they counted, and the queue is empty nevertheless.
        if not sent or came < sent * 9 // 10:
            self.stage.problems.append(f"{self.kind}: {sent} messages were acknowledged and {came} came: it shows nothing\n{text}")
        resumed = f", {found['resumed']} subscriptions went on" if self.kind == "pubsub" else ""
        return f"{self.kind}: {sent} messages, {found['again']} calls again{resumed}, {time.monotonic() - began:.1f} s to the end"

    def abandon(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
