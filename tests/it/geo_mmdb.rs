//! `geo_mmdb`, a directive of ours.

#[path = "../../src/http/modules/geo_mmdb/sample.rs"]
mod sample;

use crate::util::{Server, eventually, get};

const TEXT: &str = "geo_mmdb {root}/geo.mmdb { source $arg_a; $country country.iso_code default=NOTE; $name country.names.en; }
    server { listen {port}; return 200 $country,$name; }";

#[test]
fn addresses_are_looked_up_and_a_reload_reads_the_file_anew() {
    let server = Server::builder(TEXT).file("geo.mmdb", sample::database()).start();
    assert_eq!(get(server.port(), "/?a=1.2.3.4").text(), "NL,Netherlands");
    assert_eq!(get(server.port(), "/?a=192.0.2.1").text(), "DE,");
    assert_eq!(get(server.port(), "/?a=64.0.0.1").text(), "NOTE,");
    // A file that breaks under the server changes nothing, and a reload with it is refused.
    server.write("geo.mmdb", "broken");
    assert_eq!(get(server.port(), "/?a=1.2.3.4").text(), "NL,Netherlands");
    server.reload();
    eventually("the refusal", || server.error_log().contains("is no MaxMind database"));
    assert_eq!(get(server.port(), "/?a=1.2.3.4").text(), "NL,Netherlands");
    server.write("geo.mmdb", sample::database());
    server.configure(&TEXT.replace("NOTE", "second"));
    server.reload();
    eventually("the new configuration", || get(server.port(), "/?a=64.0.0.1").text() == "second,");
}

#[test]
fn a_server_process_that_died_starts_again_with_the_database() {
    let server = Server::builder(TEXT).file("geo.mmdb", sample::database()).start();
    assert_eq!(get(server.port(), "/?a=1.2.3.4").text(), "NL,Netherlands");
    let process = *server.children().last().expect("a server process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("killed");
    eventually("another server process", || server.children().last().is_some_and(|other| *other != process));
    eventually("its answer", || {
        crate::util::raw(server.port(), "GET /?a=1.2.3.4 HTTP/1.0\r\n\r\n")
            .is_some_and(|response| response.text() == "NL,Netherlands")
    });
}
