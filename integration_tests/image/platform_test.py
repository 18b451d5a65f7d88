"""Runs both images as Airbyte's platform does on Kubernetes, without Kubernetes.

    platform_test.py NAME=CONFIGURATION=ROOT...

CONFIGURATION is what `buildah inspect --type image` says about the image NAME, ROOT a directory with
its file system. Each container is a chroot with a process space of its own: read-only but for the
volumes that the platform mounts, user and group 1000, no way to more privileges.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAMS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).absolute() / "debug"
VERSION = re.search(r'^version = "(.*)"$', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
USER = 1000

# What the platform's launcher runs: the connector in the background, its exit code in a file that
# appears whole, and a watch for the file that tells it to end.
WRAPPER = """
[ -n "$AIRBYTE_ENTRYPOINT" ] || exit 127
({command}) &
CONNECTOR=$!
(while true; do if [ -f TERMINATED ]; then kill $CONNECTOR; exit 0; fi; sleep 1; done) &
wait $CONNECTOR
CODE=$?
echo $CODE > TEMP_EXIT_CODE.txt
mv TEMP_EXIT_CODE.txt exitCode.txt
exit $CODE
"""
READ = 'eval "$AIRBYTE_ENTRYPOINT read --config /source/connectorConfig.json --catalog /source/catalog.json$STATE" 2> stderr > stdout'
WRITE = 'eval "$AIRBYTE_ENTRYPOINT write --config /dest/connectorConfig.json --catalog /dest/catalog.json" 2> stderr > stdout < stdin'

# Runs as root in mount and process spaces of its own, which end with it.
CONTAINER = """
root=$1 volume=$2 at=$3 directory=$4 script=$5
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$volume" "$root$at"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec=1000:1000 --groups= "$root" /bin/sh -c "cd '$directory' && $script"
"""


class Image:
    """An image and its file system."""

    def __init__(self, name, configuration, root):
        self.name = name
        self.config = json.loads(pathlib.Path(configuration).read_text())["Docker"]["config"]
        self.root = pathlib.Path(root)
        self.environment = dict(variable.split("=", 1) for variable in self.config["Env"])
        for volume in ("source", "dest", "config", "proc", "dev", "tmp"):
            (self.root / volume).mkdir(exist_ok=True)

    def start(self, volume, script, at="/config", directory=None, environment=(), **streams):
        """Starts a shell in a container where `volume` is mounted at `at`, its working directory unless told otherwise."""
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", CONTAINER, "container"]
        arguments = [str(self.root), str(volume.path), at, directory or at, script]
        return subprocess.Popen(
            command + arguments, env={**self.environment, **dict(environment)}, stdin=subprocess.DEVNULL, text=True, **streams
        )

    def run(self, volume, script, **options):
        """Runs a shell in a container to its end: exit code and output of both kinds."""
        with self.start(volume, script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
            stdout, stderr = process.communicate(timeout=300)
        return process.returncode, stdout, stderr


class Volume:
    """A directory that the platform mounts, writable for the connector's user."""

    def __init__(self, **documents):
        self.path = pathlib.Path(tempfile.mkdtemp())
        for name, document in documents.items():
            (self.path / f"{name}.json").write_text(json.dumps(document))
        for path in (self.path, *self.path.iterdir()):
            os.chown(path, USER, USER)

    def pipe(self, name):
        os.mkfifo(self.path / name)
        os.chown(self.path / name, USER, USER)
        return self.path / name

    def exit_code(self):
        return int((self.path / "exitCode.txt").read_text())


def messages(text):
    # Not `splitlines`, which also splits at other characters, such as U+2028 in a text.
    return [json.loads(line) for line in text.split("\n") if line]


def of_type(found, kind, payload):
    return [message[payload] for message in found if message["type"] == kind]


def check(image, config, environment=()):
    """What `check` answers when the platform runs it, and the exit code."""
    with_config = Volume(connectionConfiguration=config)
    command = 'eval "$AIRBYTE_ENTRYPOINT check --config connectionConfiguration.json" > /config/jobOutput.json'
    code, _, stderr = image.run(with_config, WRAPPER.format(command=command), environment=environment)
    if with_config.exit_code() != code:
        raise AssertionError(f"exit code {code}, but exitCode.txt has another one: {stderr}")
    found = messages((with_config.path / "jobOutput.json").read_text())
    return of_type(found, "CONNECTION_STATUS", "connectionStatus")[0], code


def replicate(image, at, command, volume, stdin=None):
    """Runs `read` or `write` with named pipes, as the platform does: the exit code, messages and stderr."""
    output = {}

    def drain(name, path):
        output[name] = path.read_text()

    def feed(path):
        with contextlib.suppress(BrokenPipeError):
            path.write_text(stdin)

    threads = [threading.Thread(target=drain, args=(name, volume.pipe(name))) for name in ("stdout", "stderr")]
    if stdin is not None:
        threads.append(threading.Thread(target=feed, args=(volume.pipe("stdin"),)))
    for thread in threads:
        thread.daemon = True
        thread.start()
    state = " --state /source/inputState.json" if (volume.path / "inputState.json").exists() else ""
    code, shown, complaint = image.run(volume, WRAPPER.format(command=command), at=at, environment={"STATE": state})
    if code == 127:
        raise AssertionError(f"cannot be started: {shown}{complaint}")
    for thread in threads:
        thread.join(60)
    return code, messages(output["stdout"]), output["stderr"]


@contextlib.contextmanager
def sandbox(*arguments):
    """A stand-in for PostHog on this machine: what its first line says."""
    with subprocess.Popen([PROGRAMS / "posthog-sandbox", "--port", "0", *arguments], stdout=subprocess.PIPE) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


class Recorder(http.server.ThreadingHTTPServer):
    """Keeps the bodies of all requests and answers with one status."""

    def __init__(self, status):
        self.bodies = []
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                recorder.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_POST

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_):
        """A client that hangs up, as one does that distrusts the certificate, is no news."""

    @contextlib.contextmanager
    def serving(self):
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


def configured(catalog, *names):
    """A configured catalog of these streams."""
    streams = [stream for stream in catalog["streams"] if stream["name"] in names]
    modes = {"destination_sync_mode": "append"}
    return {"streams": [{"stream": stream, "sync_mode": stream["supported_sync_modes"][-1], **modes} for stream in streams]}


class Images(unittest.TestCase):
    """What holds for both images."""

    def test_configuration(self):
        for image in IMAGES.values():
            with self.subTest(image.name):
                self.assertEqual(sorted(image.environment), ["AIRBYTE_ENTRYPOINT", "PATH"], "nothing of the build")
                entrypoint = image.environment["AIRBYTE_ENTRYPOINT"]
                self.assertEqual(image.config["Entrypoint"], [entrypoint])
                self.assertFalse(image.config.get("Cmd"))
                self.assertEqual(entrypoint, f"/airbyte/{image.name}")
                self.assertTrue((image.root / entrypoint[1:]).stat().st_mode & 0o001, "everybody may run it")
                self.assertEqual(image.config["User"], "1000:1000")
                self.assertEqual(image.config["Labels"]["io.airbyte.name"], image.name)
                self.assertEqual(image.config["Labels"]["io.airbyte.version"], VERSION)
                self.assertEqual(image.config["Labels"]["org.opencontainers.image.version"], VERSION)

    def test_contents(self):
        for image in IMAGES.values():
            with self.subTest(image.name):
                programs = [path.name for path in (image.root / "airbyte").iterdir() if path.is_file()]
                self.assertEqual(sorted(programs), ["LICENSE", image.name], "one program, and nothing of the build")
                for command in ("cargo", "cc", "gcc", "ld"):
                    self.assertIsNone(shutil.which(command, path=":".join(f"{image.root}{part}" for part in image.environment["PATH"].split(":"))))
                self.assertEqual(list((image.root / "opt").iterdir()) + list((image.root / "srv").iterdir()), [])
                self.assertGreater((image.root / BUNDLE).read_text().count("BEGIN CERTIFICATE"), 50)
                files = [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]
                print(f"image: {image.name}: {sum(path.stat().st_size for path in files) / 1e6:.1f} MB, of which the program"
                      f" {(image.root / 'airbyte' / image.name).stat().st_size / 1e6:.1f} MB")

    def test_user_and_file_system(self):
        for image in IMAGES.values():
            with self.subTest(image.name):
                script = "id -u; id -g; pwd; for c in sh mv sleep kill; do command -v $c > /dev/null || echo no $c; done; echo x 2> /dev/null > /airbyte/x || echo read-only; echo x > x && echo writable"
                code, stdout, stderr = image.run(Volume(), script)
                self.assertEqual((code, stdout.split()), (0, ["1000", "1000", "/config", "read-only", "writable"]), stderr)
                code, stdout, _ = image.run(Volume(), "id -un; id -gn; ls -d ~airbyte", directory=image.config["WorkingDir"])
                self.assertEqual((code, stdout.split()), (0, ["airbyte", "airbyte", "/home/airbyte"]))

    def test_spec(self):
        for image, file in ((SOURCE, "spec.json"), (DESTINATION, "destination-patterns-spec.json")):
            with self.subTest(image.name):
                code, stdout, stderr = image.run(Volume(), WRAPPER.format(command='eval "$AIRBYTE_ENTRYPOINT spec"'))
                self.assertEqual((code, stderr), (0, ""))
                self.assertEqual(of_type(messages(stdout), "SPEC", "spec"), [json.loads((REPOSITORY / file).read_text())])

    def test_certificates(self):
        """The program in the image trusts what the image's bundle has, and nothing else."""
        authority = Authority()
        original = (SOURCE.root / BUNDLE).read_bytes()
        for image, config, trusted in (
            (SOURCE, lambda url: {"api_key": "phx_full", "base_url": url, "start_date": "2026-01-01T00:00:00Z"}, "api_key"),
            (DESTINATION, lambda url: {"webhook_url": f"{url}/api/app/webhooks/x"}, None),
        ):
            with self.subTest(image.name), authority.server(401).serving() as server:
                url = f"https://127.0.0.1:{server.server_port}"
                status, _ = check(image, config(url))
                self.assertEqual(status["status"], "FAILED")
                self.assertIn("certificate", status["message"])
                self.assertEqual(server.bodies, [], "nothing is sent to whom the image does not trust")
                (image.root / BUNDLE).write_bytes(original + authority.certificate.read_bytes())
                try:
                    status, _ = check(image, config(url))
                finally:
                    (image.root / BUNDLE).write_bytes(original)
                self.assertNotIn("certificate", status["message"])
                self.assertGreater(len(server.bodies), 0, "trusted, so asked")
                if trusted:
                    self.assertIn(trusted, status["message"])

    def test_no_certificates(self):
        original = (SOURCE.root / BUNDLE).read_bytes()
        (SOURCE.root / BUNDLE).write_bytes(b"")
        try:
            status, code = check(SOURCE, {"api_key": "phx_full", "base_url": "https://127.0.0.1:9", "start_date": "2026-01-01T00:00:00Z"})
        finally:
            (SOURCE.root / BUNDLE).write_bytes(original)
        self.assertEqual((code, status["status"]), (0, "FAILED"))
        self.assertIn("install the CA certificates of this system", status["message"])


class Authority:
    """A certificate authority of the test's own, and servers that it vouches for."""

    def __init__(self):
        directory = pathlib.Path(tempfile.mkdtemp())
        self.certificate, self.key = directory / "ca.pem", directory / "ca.key"
        self.server_certificate, self.server_key = directory / "server.pem", directory / "server.key"
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        issue = [*new, "-keyout", self.key, "-out", self.certificate, "-subj", "/CN=Test authority"]
        certify = [
            *new, "-keyout", self.server_key, "-out", self.server_certificate, "-subj", "/CN=Test server",
            "-CA", self.certificate, "-CAkey", self.key, "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
        ]
        for command in (issue, certify):
            subprocess.run(command, check=True, capture_output=True)

    def server(self, status):
        server = Recorder(status)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate, self.server_key)
        # The handshake belongs to the connection's own thread, where a refusal ends nothing else.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return server


class Sync(unittest.TestCase):
    """The whole way from the source's image to the destination's."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.posthog = cls.stack.enter_context(sandbox("--exports", "--dataset", "--events", "500"))
        cls.config = {"api_key": cls.posthog["api_key"], "base_url": cls.posthog["url"], "start_date": "2020-01-01T00:00:00Z"}

    def discover(self):
        volume = Volume(connectionConfiguration=self.config)
        command = 'eval "$AIRBYTE_ENTRYPOINT discover --config connectionConfiguration.json" > /config/jobOutput.json'
        code, _, stderr = SOURCE.run(volume, WRAPPER.format(command=command))
        self.assertEqual(code, 0, stderr)
        return of_type(messages((volume.path / "jobOutput.json").read_text()), "CATALOG", "catalog")[0]

    def select(self, query):
        """Rows as PostHog has them, asked for without the connector."""
        body = json.dumps({"query": {"kind": "HogQLQuery", "query": query}, "refresh": "force_blocking"}).encode()
        headers = {"authorization": f"Bearer {self.posthog['api_key']}", "content-type": "application/json"}
        request = urllib.request.Request(f"{self.posthog['url']}/api/projects/{self.posthog['project']}/query/", body, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["results"]

    def test_check(self):
        status, code = check(SOURCE, self.config)
        self.assertEqual((code, status["status"]), (0, "SUCCEEDED"), status)
        status, code = check(SOURCE, {**self.config, "api_key": "phx_wrong"})
        self.assertEqual((code, status["status"]), (0, "FAILED"))

    def test_from_posthog_to_patterns(self):
        catalog = configured(self.discover(), "events", "persons", "projects")
        self.assertEqual(len(catalog["streams"]), 3)
        # The last ones arrive while the test runs, so a sync may or may not have them.
        events = {row[0] for row in self.select("SELECT uuid FROM events LIMIT 50000")}
        settled = {row[0] for row in self.select("SELECT uuid FROM events WHERE created_at < now() - INTERVAL 1 MINUTE LIMIT 50000")}
        self.assertGreater(len(settled), 3000)

        for method in ("query", "export"):
            with self.subTest(method):
                config = {**self.config, "method": {"type": method, **({"settle_minutes": 0} if method == "export" else {})}}
                volume = Volume(connectorConfig=config, catalog=catalog)
                code, found, stderr = replicate(SOURCE, "/source", READ, volume)
                self.assertEqual((code, volume.exit_code(), stderr), (0, 0, ""))
                records = {record["data"]["id"] for record in of_type(found, "RECORD", "record") if record["stream"] == "events"}
                self.assertEqual((settled - records, records - events), (set(), set()))
                self.write(catalog, found)

                # The platform's state file: the last state of every stream.
                states = {state["stream"]["stream_descriptor"]["name"]: state for state in of_type(found, "STATE", "state")}
                volume = Volume(connectorConfig=config, catalog=catalog, inputState=list(states.values()))
                code, found, stderr = replicate(SOURCE, "/source", READ, volume)
                self.assertEqual((code, stderr), (0, ""))
                again = {record["data"]["id"] for record in of_type(found, "RECORD", "record") if record["stream"] == "events"}
                self.assertLess(len(again), len(settled) / 2, "the state is used")

    def write(self, catalog, found):
        """Writes what was read to a webhook; every record must arrive, every state must come back."""
        with Recorder(200).serving() as patterns:
            config = {"webhook_url": f"http://127.0.0.1:{patterns.server_port}/api/app/webhooks/x"}
            volume = Volume(connectorConfig=config, catalog=catalog)
            lines = "".join(json.dumps(message) + "\n" for message in found if message["type"] in ("RECORD", "STATE"))
            code, answers, stderr = replicate(DESTINATION, "/dest", WRITE, volume, stdin=lines)
            self.assertEqual((code, stderr), (0, ""))
            delivered = [record for body in patterns.bodies for record in json.loads(body)]
        self.assertEqual(len(delivered), len(of_type(found, "RECORD", "record")))
        states = lambda messages: [state["stream"] for state in of_type(messages, "STATE", "state")]
        self.assertEqual(states(answers), states(found))

    def test_it_ends_when_the_platform_says_so(self):
        """A read that waits for a server that does not answer is ended by the marker file."""
        with Recorder(200) as silent:  # takes connections and never serves them
            config = {**self.config, "base_url": f"http://127.0.0.1:{silent.server_port}"}
            volume = Volume(connectorConfig=config, catalog=configured(self.discover(), "events"))
            command = READ.replace("stderr > stdout", "/dev/null > /dev/null").replace("$STATE", "")
            silent.socket.settimeout(60)
            process = SOURCE.start(volume, WRAPPER.format(command=command), at="/source")
            try:
                connection, _ = silent.socket.accept()
                with connection:
                    (volume.path / "TERMINATED").touch()
                    code = process.wait(timeout=60)
            finally:
                process.kill()
                process.wait()
        self.assertEqual((code, volume.exit_code()), (143, 143), "SIGTERM, as the platform knows it")

    def test_a_missing_entry_point_is_noticed(self):
        self.assertEqual(SOURCE.run(Volume(), WRAPPER.format(command="true"), environment={"AIRBYTE_ENTRYPOINT": ""})[0], 127)


if __name__ == "__main__":
    IMAGES = {name: Image(name, configuration, root) for name, configuration, root in (argument.split("=") for argument in sys.argv[1:])}
    SOURCE, DESTINATION = IMAGES["source-posthog"], IMAGES["destination-patterns"]
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        unittest.main(argv=sys.argv[:1], verbosity=2)
