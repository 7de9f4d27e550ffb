//! gRPC as others wrote it: Python's grpcio as the client and as the upstream.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A server of Python's grpcio: each method of `/t/` in its way.
const GRPCIO: &str = r#"
import grpc, sys
from concurrent import futures

class Methods(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method
        if name == "/t/Unary":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"echo:" + request)
        if name == "/t/Fail":
            def fail(request, context):
                context.set_trailing_metadata((("x-trailer", "1"),))
                context.abort(grpc.StatusCode.NOT_FOUND, "none such")
            return grpc.unary_unary_rpc_method_handler(fail)
        if name == "/t/Up":
            return grpc.stream_unary_rpc_method_handler(lambda parts, context: str(sum(map(len, parts))).encode())
        if name == "/t/Down":
            def down(request, context):
                for _ in range(int(request)):
                    yield b"x" * 50000
            return grpc.unary_stream_rpc_method_handler(down)
        if name == "/t/Both":
            def both(parts, context):
                for part in parts:
                    yield b">" + part
            return grpc.stream_stream_rpc_method_handler(both)
        if name == "/t/Hang":
            def hang(request, context):
                import threading
                over = threading.Event()
                context.add_callback(over.set)
                over.wait(30)
                print("over", flush=True)
                return b""
            return grpc.unary_unary_rpc_method_handler(hang)

server = grpc.server(futures.ThreadPoolExecutor(64))
server.add_generic_rpc_handlers((Methods(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
"#;

/// Its client; says in the end what it saw.
const GRPCIO_CLIENT: &str = r#"
import grpc, sys

channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1])
unary = lambda name: channel.unary_unary("/t/" + name)
assert unary("Unary")(b"hi") == b"echo:hi"

def error(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise SystemExit("no error")

failed = error(lambda: unary("Fail")(b"x"))
assert failed.code() == grpc.StatusCode.NOT_FOUND and failed.details() == "none such", failed
assert ("x-trailer", "1") in [tuple(item) for item in failed.trailing_metadata()]
assert channel.stream_unary("/t/Up")(iter([b"a" * 100000] * 50)) == b"5000000"
assert sum(map(len, channel.unary_stream("/t/Down")(b"100"))) == 5000000
assert list(channel.stream_stream("/t/Both")(iter([b"1", b"2"]))) == [b">1", b">2"]
assert error(lambda: unary("Hang")(b"", timeout=0.5)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
assert error(lambda: unary("None")(b"")).code() == grpc.StatusCode.UNIMPLEMENTED
calls = [unary("Unary").future(b"%d" % index) for index in range(200)]
assert all(call.result() == b"echo:%d" % index for index, call in enumerate(calls))
# Where no upstream answers, the status is HTTP's, and what gRPC makes of it.
dead = channel.unary_unary("/dead/x")
assert error(lambda: dead(b"")).code() == grpc.StatusCode.UNAVAILABLE
print("all is well")
"#;

/// A child process that ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Python with grpcio: the one that `THALWEG_TEST_PYTHON` names, or the system's.
fn python() -> Command {
    Command::new(std::env::var("THALWEG_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
}

#[test]
fn grpcio_on_both_sides() {
    let has_it = python().args(["-c", "import grpc"]).stderr(Stdio::null()).status();
    if !has_it.is_ok_and(|status| status.success()) {
        eprintln!("grpcio is not installed: nothing was tested");
        return;
    }
    let mut child = python().args(["-c", GRPCIO]).stdout(Stdio::piped()).spawn().expect("python");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let _process = Process(child);
    let mut port = String::new();
    output.read_line(&mut port).expect("a port");
    let server = Server::start(&format!(
        "client_max_body_size 0; server {{ listen {{port}}; http2 on;
         location / {{ grpc_pass grpc://127.0.0.1:{0}; }} location /dead {{ grpc_pass 127.0.0.1:1; }} }}",
        port.trim()
    ));
    let client = python().args(["-c", GRPCIO_CLIENT, &server.port().to_string()]).output().expect("python");
    let told = String::from_utf8_lossy(&client.stderr);
    assert_eq!(String::from_utf8_lossy(&client.stdout).trim(), "all is well", "{told}");
    let mut line = String::new();
    output.read_line(&mut line).expect("what the server says");
    assert_eq!(line.trim(), "over", "the server learns of the deadline");
}
