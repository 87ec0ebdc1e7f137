"""A service that classifies one sample a request, by a kernel machine on the gates of torch.onnx.

``python engineer_service.py`` fits the machine, serves, asks itself 100 times, and prints how long
an answer took.
"""

import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np

import npk


def handler(machine):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            sample = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(int(machine.predict(np.float32([sample]))[0])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    return Handler


def ask(url, sample):
    with urllib.request.urlopen(url, data=json.dumps(sample.tolist()).encode()) as answer:
        return json.load(answer)


if __name__ == "__main__":
    X, y = npk.data.load("fresh.npz").X, np.load("labels.npy")
    start = time.perf_counter()
    machine = npk.NPKRidgeClassifier(npk.load("torch.onnx"), progress=False).fit(X[:600], y[:600])
    print(f"fitted to 600 samples in {time.perf_counter() - start:.1f} s")
    server = HTTPServer(("127.0.0.1", 0), handler(machine))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, seconds, right = f"http://127.0.0.1:{server.server_port}", [], 0
    for sample, label in zip(X[600:700], y[600:700], strict=True):
        start = time.perf_counter()
        right += ask(url, sample) == label
        seconds.append(time.perf_counter() - start)
    server.shutdown()
    first, *rest = (1000 * s for s in seconds)
    print(f"{right} of {len(seconds)} right; the first answer took {first:.0f} ms")
    print(f"one answer: {np.median(rest):.1f} ms (median), {np.quantile(rest, 0.95):.1f} ms (95 %)")
