//! Which server answers: `server_name` in all its forms, default servers, and the names in redirects.

use crate::util::{Cases, Server, get, request};

#[test]
fn an_exact_name_is_found_whatever_its_case_and_port() {
    Cases::new(
        "server { listen {port}; server_name a.example b.example; return 200 first; }
         server { listen {port}; server_name c.example; return 200 second; }",
    )
    .host("a.example", "/", "200 first")
    .host("b.example", "/", "200 first")
    .host("c.example", "/", "200 second")
    .host("C.EXAMPLE", "/", "200 second")
    .host("c.example:1234", "/", "200 second")
    .host("c.example.", "/", "200 second")
    .host("c.example.:80", "/", "200 second")
    .host("d.example", "/", "200 first")
    .check();
}

#[test]
fn exact_wins_over_leading_wildcard_over_trailing_wildcard_over_regex() {
    Cases::new(
        r"server { listen {port}; return 200 default; }
          server { listen {port}; server_name ~^www\.; return 200 regex; }
          server { listen {port}; server_name www.example.*; return 200 trailing; }
          server { listen {port}; server_name *.example.org; return 200 leading; }
          server { listen {port}; server_name www.example.org; return 200 exact; }",
    )
    .host("www.example.org", "/", "200 exact")
    .host("ftp.example.org", "/", "200 leading")
    .host("a.b.example.org", "/", "200 leading")
    .host("example.org", "/", "200 default")
    .host("www.example.net", "/", "200 trailing")
    .host("www.example.co.uk", "/", "200 trailing")
    .host("www.example", "/", "200 regex")
    .host("www.other.org", "/", "200 regex")
    .host("other.org", "/", "200 default")
    .check();
}

#[test]
fn the_longest_wildcard_wins() {
    Cases::new(
        "server { listen {port}; return 200 default; }
         server { listen {port}; server_name *.example.org; return 200 short; }
         server { listen {port}; server_name *.deep.example.org; return 200 long; }
         server { listen {port}; server_name mail.*; return 200 mail; }
         server { listen {port}; server_name mail.example.*; return 200 mail-example; }",
    )
    .host("a.example.org", "/", "200 short")
    .host("a.deep.example.org", "/", "200 long")
    .host("deep.example.org", "/", "200 short")
    .host("mail.test", "/", "200 mail")
    .host("mail.example.test", "/", "200 mail-example")
    .host("mail.example.org", "/", "200 short")
    .check();
}

#[test]
fn a_leading_dot_means_the_name_and_everything_below() {
    Cases::new(
        "server { listen {port}; return 200 default; }
         server { listen {port}; server_name .example.org; return 200 dot; }
         server { listen {port}; server_name exact.example.org; return 200 exact; }",
    )
    .host("example.org", "/", "200 dot")
    .host("a.example.org", "/", "200 dot")
    .host("a.b.example.org", "/", "200 dot")
    .host("exact.example.org", "/", "200 exact")
    .host("badexample.org", "/", "200 default")
    .check();
}

#[test]
fn regexes_are_tried_in_the_order_of_the_file_and_capture() {
    Cases::new(
        r"server { listen {port}; return 200 default; }
          server { listen {port}; server_name ~^(?<user>[a-z]+)\.(?P<zone>example|test)\.org$;
                   return 200 $user-$zone-$1-$2; }
          server { listen {port}; server_name ~^(.+)\.org$; return 200 second-$1; }
          server { listen {port}; server_name '~^n(\d{2,3})\.net$'; return 200 number-$1; }",
    )
    .host("ann.example.org", "/", "200 ann-example-ann-example")
    .host("bob.test.org", "/", "200 bob-test-bob-test")
    .host("BOB.TEST.org", "/", "200 bob-test-bob-test")
    .host("7.example.org", "/", "200 second-7.example")
    .host("n123.net", "/", "200 number-123")
    .host("n1.net", "/", "200 default")
    .check();
}

#[test]
fn an_empty_name_takes_requests_without_host_and_underscore_is_just_a_name() {
    Cases::new(
        "server { listen {port}; server_name _; return 200 default; }
         server { listen {port}; server_name ''; return 200 nameless; }
         server { listen {port}; server_name a.example; return 200 other; }",
    )
    .request("GET / HTTP/1.0\r\n\r\n", "200 nameless")
    .host("", "/", "400")
    .host("a.example", "/", "200 other")
    .host("unknown", "/", "200 default")
    .host("_", "/", "200 default")
    .check();
}

#[test]
fn default_server_answers_for_unknown_names_and_each_address_has_its_own() {
    let conf = "server { listen {port}; listen {port2} default_server; server_name a.example; return 200 a; }
         server { listen {port} default_server; server_name b.example; return 200 b; }
         server { listen {port2}; server_name b.example; return 200 b2; }";
    let server = Server::start(conf);
    let ask = |port, host| request(port, "GET", "/", &[("Host", host)]).text();
    assert_eq!(ask(server.port(), "nobody"), "b");
    assert_eq!(ask(server.port(), "a.example"), "a");
    assert_eq!(ask(server.port_of(2), "nobody"), "a");
    assert_eq!(ask(server.port_of(2), "b.example"), "b2");
    Cases::new(conf).host("nobody", "/", "200 b").host("a.example", "/", "200 a").check();
}

#[test]
fn a_specific_address_is_preferred_to_the_wildcard() {
    Cases::new(
        "server { listen {port}; server_name a.example; return 200 wildcard; }
         server { listen 127.0.0.1:{port}; server_name b.example; return 200 specific; }",
    )
    .host("a.example", "/", "200 specific")
    .host("b.example", "/", "200 specific")
    .check();
}

#[test]
fn the_absolute_form_names_the_host() {
    Cases::new(
        "server { listen {port}; server_name a.example; return 200 a:$host:$http_host; }
         server { listen {port}; server_name b.example; return 200 b:$host:$http_host; }",
    )
    .request(
        "GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "200 b:b.example:a.example",
    )
    .request(
        "GET http://B.example:99/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "200 b:b.example:a.example",
    )
    .check();
}

#[test]
fn host_and_server_name_variables() {
    Cases::new(
        r"server { listen {port}; server_name first.example second.example; return 200 '$host|$server_name|$http_host'; }
          server { listen {port}; server_name ~^(?<n>.+)\.re$; return 200 '$host|$server_name|$n'; }
          server { listen {port}; server_name .dot.example; return 200 '$host|$server_name'; }
          server { listen {port}; server_name *.star.example; return 200 '$host|$server_name'; }",
    )
    .host("SECOND.example:8", "/", "200 second.example|first.example|SECOND.example:8")
    .host("unknown.", "/", "200 unknown|first.example|unknown.")
    .host("x.re", "/", r"200 x.re|~^(?<n>.+)\.re$|x")
    .host("x.dot.example", "/", "200 x.dot.example|dot.example")
    .host("x.star.example", "/", "200 x.star.example|*.star.example")
    .request("GET / HTTP/1.0\r\n\r\n", "200 first.example|first.example|")
    .host("[::1]:80", "/", "200 [::1]|first.example|[::1]:80")
    .check();
}

#[test]
fn hostname_is_a_possible_name() {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hostname = hostname.trim().to_lowercase();
    Cases::new(
        "server { listen {port}; return 200 default; }
         server { listen {port}; server_name $hostname; return 200 $server_name; }",
    )
    .host(&hostname, "/", &format!("200 {hostname}"))
    .check();
}

#[test]
fn redirects_name_the_hosts_name_or_the_servers() {
    let locations =
        "location /folder/ { } location = /r { return 301 /to; } location = /w { rewrite ^ /to redirect; }";
    Cases::new(&format!(
        "root {{root}}/html;
         server {{ listen {{port}}; server_name off.example; {locations} }}
         server {{ listen {{port}}; server_name on.example *.on.example; server_name_in_redirect on; {locations} }}
         server {{ listen {{port}}; server_name portless.example; port_in_redirect off; {locations} }}
         server {{ listen {{port}}; server_name relative.example; absolute_redirect off; {locations} }}"
    ))
    .file("html/folder/a.txt", "a")
    .host("off.example", "/folder", "301 http://off.example:{port}/folder/")
    .host("OFF.example:99", "/folder", "301 http://off.example:{port}/folder/")
    .host("other.example", "/folder?a=b", "301 http://other.example:{port}/folder/?a=b")
    .host("off.example", "/r", "301 http://off.example:{port}/to")
    .host("off.example", "/w?q", "302 http://off.example:{port}/to?q")
    .host("www.on.example", "/folder", "301 http://on.example:{port}/folder/")
    .host("www.on.example", "/r", "301 http://on.example:{port}/to")
    .host("portless.example", "/folder", "301 http://portless.example/folder/")
    .host("portless.example", "/r", "301 http://portless.example/to")
    .host("relative.example", "/folder?x=1", "301 /folder/?x=1")
    .host("relative.example", "/r", "301 /to")
    .host("relative.example", "/w", "302 /to")
    .request("GET /folder HTTP/1.0\r\n\r\n", "301 http://127.0.0.1:{port}/folder/")
    .check();
}

#[test]
fn ten_thousand_servers_start_and_each_is_found() {
    let mut text = String::new();
    for number in 0..10_000 {
        text.push_str(&format!(
            "server {{ listen {{port}}; server_name s{number}.example *.w{number}.example; return 200 {number}; }}\n"
        ));
    }
    let started = std::time::Instant::now();
    let server = Server::builder(&format!(
        "http {{ server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n{text}}}"
    ))
    .start();
    let took = started.elapsed();
    println!("10,000 server blocks: {took:?} from the start of the process to the first accepted connection");
    if !cfg!(debug_assertions) {
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    }
    let ask = |host: &str| request(server.port(), "GET", "/", &[("Host", host)]).text();
    assert_eq!(ask("s9999.example"), "9999");
    assert_eq!(ask("x.y.w1234.example"), "1234");
    assert_eq!(get(server.port(), "/").text(), "0");
}
