//! Clients as others wrote them: curl, nghttp and h2load, a browser, node, Python.

use super::*;
use crate::util::browser::{self, Browser};
use crate::util::tls::{curl, run};

#[test]
fn curl_speaks_it_both_ways() {
    if !has("curl") {
        return;
    }
    let server = start("location /v { return 200 \"$server_protocol $http2 $ssl_alpn_protocol\"; }");
    let big = noise(20 << 20);
    server.write("html/big", &big);
    let (plain, secure) = (server.port(), server.port_of(2));
    let urls = [
        ("--http2-prior-knowledge", format!("http://localhost:{plain}")),
        ("--http2", format!("https://example.com:{secure}")),
    ];
    for (option, base) in &urls {
        let said = curl(&[option, "-w", " %{http_version}", &format!("{base}/v")]).text();
        let expected = if base.contains("https") { "HTTP/2.0 h2 h2 2" } else { "HTTP/2.0 h2c  2" };
        assert_eq!(said, expected);
        let said = curl(&[option, &format!("{base}/big")]);
        assert!(said.code == 0 && said.stdout == big, "{base}: {} {}", said.stdout.len(), said.stderr);
        let part = curl(&[option, "-r", "1000000-2999999", &format!("{base}/big")]);
        assert!(part.stdout == big[1_000_000..3_000_000]);
        let slow = curl(&[option, "--limit-rate", "4m", "-r", "0-1999999", &format!("{base}/big")]);
        assert!(slow.stdout == big[..2_000_000]);
        // (This curl fails at its second request with prior knowledge, whoever the server is.)
        if *option == "--http2" {
            let several = curl(&[
                option,
                "--parallel",
                "-I",
                "-w",
                "%{http_code}-%{http_version}\n",
                "-o",
                "/dev/null",
                &format!("{base}/v?[1-50]"),
            ]);
            assert!(several.code == 0, "{several:?}");
        }
    }
    // An Upgrade from HTTP/1.1 is not followed: the request is answered as it is.
    let said = curl(&["--http2", "-w", " %{http_version}", &format!("http://localhost:{plain}/v")]).text();
    assert_eq!(said, "HTTP/1.1   1.1");
}

#[test]
fn nghttp_and_h2load_are_served() {
    if !has("nghttp") || !has("h2load") {
        return;
    }
    let server = start("keepalive_requests 100000;");
    server.write("html/a.txt", "hello");
    server.write("html/b", noise(300_000));
    let base = format!("http://localhost:{}", server.port());
    let said = run("nghttp", &["-nv", "-m", "10", &format!("{base}/a.txt"), &format!("{base}/b")], b"");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let text = said.text();
    assert!(text.matches(":status: 200").count() == 20 && !text.contains("GOAWAY frame <length=8, flags=0x00, stream_id=0>\n          (last_stream_id=0, error_code=PROTOCOL"), "{text}");
    for (port, scheme, arguments) in [
        (1, "http", &["-n", "5000", "-c", "8", "-m", "32"][..]),
        (2, "https", &["-n", "3000", "-c", "4", "-m", "100"]),
        (1, "http", &["-n", "400", "-c", "2", "-m", "10", "-w", "12", "-W", "14"]),
    ] {
        for path in ["a.txt", "b"] {
            let url = format!("{scheme}://localhost:{}/{path}", server.port_of(port));
            let count = if path == "b" { "100" } else { arguments[1] };
            let all = [&["-n", count], &arguments[2..], &[&url]].concat();
            let said = run("h2load", &all, b"").text();
            let line = format!(
                "requests: {count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"
            );
            assert!(said.contains(&line), "{said}");
        }
    }
}

#[test]
fn a_browser_shows_a_page_of_many_parts() {
    if !browser::available() {
        return;
    }
    let server = start("location /api { return 200 '{}'; } location = /v { return 200 $server_protocol; }");
    let mut page = String::from("<!doctype html><title>page</title>");
    for number in 0..60 {
        page.push_str(&format!("<script src=/s{number}.js></script>"));
        server.write(
            &format!("html/s{number}.js"),
            format!("window.count = (window.count || 0) + 1; // {}", "x".repeat(number * 997)),
        );
    }
    page.push_str("<script>fetch('/v').then(r => r.text()).then(t => document.title = t); fetch('/api', {method: 'POST', body: 'x'.repeat(200000)})</script>");
    server.write("html/index.html", page);
    server.write("html/favicon.ico", "");
    let mut browser = Browser::start_with("--ignore-certificate-errors");
    let seen = browser.visit(&format!("https://example.com:{}/", server.port_of(2)));
    assert_eq!(seen.problems, [""; 0]);
    eventually("the protocol", || browser.evaluate("document.title") == "HTTP/2.0");
    assert_eq!(browser.evaluate("window.count"), 60);
    eventually("lines", || lines(&server, "HTTP/2.0|200|HTTP/2.0|h2|") >= 63);
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

#[test]
fn curl_uploads() {
    if !has("curl") {
        return;
    }
    let upstream = Upstream::http(|_, body| ok(&body.len().to_string()));
    let server = proxy(&upstream, "client_max_body_size 64m;");
    let file = server.write("upload", noise(20 << 20));
    let body = format!("@{}", file.to_str().expect("UTF-8"));
    for (option, url) in [
        ("--http2-prior-knowledge", format!("http://localhost:{}/", server.port())),
        ("--http2", format!("https://example.com:{}/", server.port_of(2))),
    ] {
        for expect in ["Expect:", "Expect: 100-continue"] {
            let said = curl(&[option, "-H", expect, "--data-binary", &body, &url]);
            assert_eq!(said.text(), (20 << 20).to_string(), "{}", said.stderr);
        }
    }
}

#[test]
fn node_is_served() {
    if !has("node") {
        return;
    }
    let upstream = Upstream::http(|_, body| ok(&body.len().to_string()));
    let server = start(&format!("location /p {{ proxy_pass http://127.0.0.1:{}; }}", upstream.port()));
    server.write("html/a", noise(500_000));
    let script = "
        const http2 = require('http2'), fs = require('fs');
        const [,, url, ca] = process.argv;
        const client = http2.connect(url, { ca: fs.readFileSync(ca), servername: 'example.com' });
        client.on('error', error => { console.error(error); process.exit(1); });
        const ask = (headers, body) => new Promise((resolve, reject) => {
            const request = client.request({ ':authority': 'example.com', ...headers });
            let status, length = 0, text = '';
            request.on('response', head => status = head[':status']);
            request.on('data', piece => { length += piece.length; text += piece; });
            request.on('end', () => resolve([status, length, text]));
            request.on('error', reject);
            request.end(body);
        });
        Promise.all([...Array(40)].map((_, number) => number % 2
            ? ask({ ':path': '/a' })
            : ask({ ':path': '/p', ':method': 'POST' }, Buffer.alloc(300000))
        )).then(all => {
            console.log(all.map(([status, length, text]) => length < 100 ? status + ':' + text : status + '/' + length)
                .sort().filter((x, i, a) => x !== a[i - 1]).join(' '));
            client.close();
        }).catch(error => { console.error(error); process.exit(1); });";
    let script = server.write("script.js", script);
    let authority = format!("{}/ca.pem", crate::util::tls::FIXTURES);
    for url in
        [format!("https://127.0.0.1:{}", server.port_of(2)), format!("http://127.0.0.1:{}", server.port())]
    {
        let said = run("node", &[script.to_str().expect("UTF-8"), &url, &authority], b"");
        assert_eq!(said.text().trim(), "200/500000 200:300000", "{}", said.stderr);
    }
}

#[test]
fn python_is_served() {
    if !has("python3") {
        return;
    }
    let upstream = Upstream::http(|_, body| ok(&body.len().to_string()));
    let server = start(&format!("location /p {{ proxy_pass http://127.0.0.1:{}; }}", upstream.port()));
    server.write("html/a", noise(500_000));
    let script = "
import sys
try: import httpx
except ImportError: print('no httpx'); sys.exit()
import asyncio
name = {'sni_hostname': 'example.com'}
async def main():
    async with httpx.AsyncClient(http2=True, verify=sys.argv[2]) as client:
        asks = [client.get(sys.argv[1] + '/a', extensions=name) if n % 2 else client.post(sys.argv[1] + '/p', content=b'x' * 300000, extensions=name) for n in range(40)]
        answers = await asyncio.gather(*asks)
        print(sorted({(r.http_version, r.status_code, len(r.content) if len(r.content) > 100 else r.text) for r in answers}, key=str))
asyncio.run(main())";
    let script = server.write("script.py", script);
    let authority = format!("{}/ca.pem", crate::util::tls::FIXTURES);
    let url = format!("https://127.0.0.1:{}", server.port_of(2));
    let said = run("python3", &[script.to_str().expect("UTF-8"), &url, &authority], b"");
    if said.text().trim() == "no httpx" {
        eprintln!("skipped: no httpx");
        return;
    }
    assert_eq!(said.text().trim(), "[('HTTP/2', 200, '300000'), ('HTTP/2', 200, 500000)]", "{}", said.stderr);
}
