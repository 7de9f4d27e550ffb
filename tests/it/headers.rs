//! `add_header`, `add_trailer`, their inheritance, and `expires` in all its forms.

use crate::util::{Cases, Client, Server, get};

#[test]
fn add_header_applies_to_successes_and_redirects_unless_always() {
    // Not 304: nginx sends the length of the text with it.
    let codes = [200, 201, 204, 206, 301, 302, 303, 307, 308, 202, 400, 403, 404, 418, 500, 503];
    let mut text = String::from("server { listen {port}; add_header X-A a; add_header X-B b always;\n");
    for code in codes {
        text.push_str(&format!("location = /{code} {{ return {code} /x; }}\n"));
    }
    text.push('}');
    let mut cases = Cases::new(&text).show(&["x-a", "x-b"]);
    for code in codes {
        let path = format!("/{code}");
        let body = match code {
            204 => "",
            301 | 302 | 303 | 307 | 308 => " http://localhost:{port}/x",
            _ => " /x",
        };
        let both = matches!(code, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 307 | 308);
        let fields = if both { " [x-a: a] [x-b: b]" } else { " [x-b: b]" };
        cases = cases.get(&path, &format!("{code}{body}{fields}"));
    }
    cases.check();
}

#[test]
fn add_header_takes_variables_and_leaves_out_empty_values() {
    Cases::new(
        r#"server { listen {port}; add_header X-Uri $uri; add_header X-Empty $arg_none; add_header X-Text "a $arg_a; b";
            add_header Cache-Control private; add_header Cache-Control no-store; return 200; }"#,
    )
    .show(&["x-uri", "x-empty", "x-text", "cache-control"])
    .get(
        "/p?a=1",
        "200 [x-uri: /p] [x-text: a 1; b] [cache-control: private] [cache-control: no-store]",
    )
    .check();
}

#[test]
fn add_header_is_inherited_only_where_a_level_has_none_of_its_own() {
    Cases::new(
        "add_header X-Http h;
         server { listen {port}; add_header X-Server s;
            location /inherits { return 200; }
            location /own { add_header X-Own o; return 200; }
            location /nested { location /nested/in { return 200; } add_header X-Nested n; return 200; } }
         server { listen {port}; server_name other; return 200; }",
    )
    .show(&["x-http", "x-server", "x-own", "x-nested"])
    .get("/inherits", "200 [x-server: s]")
    .get("/own", "200 [x-own: o]")
    .get("/nested", "200 [x-nested: n]")
    .get("/nested/in", "200 [x-nested: n]")
    .host("other", "/", "200 [x-http: h]")
    .check();
}

#[test]
fn add_header_inherit_merges_or_blocks() {
    Cases::new(
        "add_header X-Http h;
         server { listen {port}; add_header X-Server s; add_header_inherit merge;
            location /merge { add_header X-Own o; return 200; }
            location /on { add_header_inherit on; add_header X-Own o; return 200; }
            location /off { add_header_inherit off; return 200; }
            location /off-own { add_header_inherit off; add_header X-Own o; return 200; }
            location / { return 200; } }",
    )
    .only_ours("the directive came with nginx 1.29.3")
    .show(&["x-http", "x-server", "x-own"])
    .get("/merge", "200 [x-http: h] [x-server: s] [x-own: o]")
    .get("/on", "200 [x-own: o]")
    .get("/off", "200")
    .get("/off-own", "200 [x-own: o]")
    .get("/", "200 [x-http: h] [x-server: s]")
    .check();
}

#[test]
fn add_header_sets_special_fields_instead_of_adding() {
    Cases::new(
        r#"server { listen {port}; root {root}/html;
            location /modified { add_header Last-Modified "Mon, 01 Jan 2001 00:00:00 GMT"; }
            location /no-modified { add_header Last-Modified ""; }
            location /etag { add_header ETag '"own"'; }
            location /no-etag { add_header ETag ""; } }"#,
    )
    .show(&["last-modified", "etag"])
    .file("html/modified", "m")
    .file("html/no-modified", "n")
    .file("html/no-etag", "e")
    .get("/modified", "200 m [last-modified: Mon, 01 Jan 2001 00:00:00 GMT] [etag: \"65937d25-1\"]")
    .get("/no-modified", "200 n [etag: \"65937d25-1\"]")
    .get("/no-etag", "200 e [last-modified: Tue, 02 Jan 2024 03:04:05 GMT]")
    .check();
}

#[test]
fn headers_apply_to_files_error_pages_and_listings_alike() {
    Cases::new(
        "server { listen {port}; root {root}/html; add_header X-A $status always; autoindex on;
            error_page 404 /404.html; }",
    )
    .show(&["x-a"])
    .file("html/f", "f")
    .file("html/404.html", "not here")
    .get("/f", "200 f [x-a: 200]")
    .get("/none", "404 not here [x-a: 404]")
    .check();
}

#[test]
fn a_value_with_a_line_break_can_not_split_the_response() {
    // nginx writes the line break.
    if !crate::util::subject_is_ours() {
        return;
    }
    let server =
        Server::start("server { listen {port}; add_header X-A $uri; add_trailer X-T $uri; return 200 x; }");
    let response = get(server.port(), "/a%0d%0aX-Forged:%201");
    assert_eq!(response.header("x-forged"), None, "{response:?}");
    assert_eq!(response.header("x-a"), Some("/a  X-Forged: 1"));
    assert_eq!(response.trailers, [("X-T".to_owned(), "/a  X-Forged: 1".to_owned())]);
}

#[test]
fn add_trailer_comes_after_a_chunked_body() {
    Cases::new(
        "server { listen {port}; root {root}/html; add_trailer X-T $uri; add_trailer X-Always a always;
            add_trailer X-Empty $arg_none; }",
    )
    .file("html/f", "file")
    .request("GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 file")
    .request("GET /f HTTP/1.1\r\nHost: a\r\nConnection: TE, close\r\nTE: trailers\r\n\r\n", "200 file")
    .request("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "404")
    .request("GET /f HTTP/1.0\r\n\r\n", "200 file")
    .request("HEAD /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200")
    .check();
    let server = Server::builder("server { listen {port}; root {root}/html; add_trailer X-T $uri; }")
        .file("html/f", "file")
        .start();
    let mut client = Client::connect(server.port());
    client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.trailers, [("X-T".to_owned(), "/f".to_owned())]);
    assert_eq!(response.body, b"file");
}

#[test]
fn add_trailer_inherit_merges() {
    let server = Server::start(
        "add_trailer X-H h; server { listen {port}; add_trailer_inherit merge; add_trailer X-S s; return 200 x; }",
    );
    if crate::util::subject_is_ours() {
        let names: Vec<_> = get(server.port(), "/").trailers.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["X-S", "X-H"]);
    }
}

/// What the difference between `Expires` and `Date` is, and `Cache-Control`.
fn expires(server: &Server, path: &str) -> (Option<i64>, Option<String>) {
    let response = get(server.port(), path);
    assert_eq!(response.status, 200, "{path}");
    let seconds = |name: &str| {
        let value = response.header(name)?;
        let time = httpdate(value).unwrap_or_else(|| panic!("{name}: {value:?} is not a date"));
        Some(time)
    };
    let difference = seconds("expires").map(|time| time - seconds("date").expect("a date"));
    (difference, response.header("cache-control").map(str::to_owned))
}

/// Seconds since 1970 of an IMF-fixdate.
fn httpdate(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts.as_slice() else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(months.iter().position(|known| known == month)?).ok()? + 1;
    let (day, mut year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    // Days from the civil calendar: years begin in March.
    year -= i64::from(month <= 2);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4 - year.rem_euclid(400) / 100 + of_year;
    let days = era * 146_097 + of_era - 719_468;
    let (hour, minute, second): (i64, i64, i64) =
        (hour.parse().ok()?, minute.parse().ok()?, second.parse().ok()?);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

const EXPIRES: &str = "server { listen {port}; root {root}/html;
    map_placeholder
    location /a { expires 1h; }
    location /b { expires -1; }
    location /c { expires epoch; }
    location /d { expires max; }
    location /e { expires off; }
    location /f { expires 0; }
    location /g { expires 1h30m; }
    location /h { expires modified +1d; }
    location /i { expires $arg_when; }
    location /j { expires modified 0; }
    location /k { expires -1h; add_header Cache-Control public; }
    location /l { return 404; expires 1h; }
    location /m { expires 10y; } }";

#[test]
fn expires_in_seconds_before_and_after() {
    let text = EXPIRES.replace("map_placeholder", "");
    let mut builder = Server::builder(&text);
    for name in "abcdefghijkm".chars() {
        builder = builder.file(&format!("html/{name}"), "x");
    }
    let server = builder.start();
    let age = |text: &str| Some(text.to_owned());
    assert_eq!(expires(&server, "/a"), (Some(3600), age("max-age=3600")));
    assert_eq!(expires(&server, "/b"), (Some(-1), age("no-cache")));
    assert_eq!(expires(&server, "/e"), (None, None));
    assert_eq!(expires(&server, "/f"), (Some(0), age("max-age=0")));
    assert_eq!(expires(&server, "/g"), (Some(5400), age("max-age=5400")));
    assert_eq!(expires(&server, "/i?when=2h"), (Some(7200), age("max-age=7200")));
    assert_eq!(expires(&server, "/i?when=off"), (None, None));
    assert_eq!(expires(&server, "/i"), (None, None));
    assert_eq!(expires(&server, "/i?when=nonsense"), (None, None));
    assert_eq!(expires(&server, "/m"), (Some(315_360_000), age("max-age=315360000")));
    // Fixed points in time.
    assert_eq!(get(server.port(), "/c").header("expires"), Some("Thu, 01 Jan 1970 00:00:01 GMT"));
    assert_eq!(expires(&server, "/c").1, age("no-cache"));
    assert_eq!(get(server.port(), "/d").header("expires"), Some("Thu, 31 Dec 2037 23:55:55 GMT"));
    assert_eq!(expires(&server, "/d").1, age("max-age=315360000"));
    // The files are of 2024-01-02 03:04:05: long past, so that nothing may be kept.
    assert_eq!(get(server.port(), "/h").header("expires"), Some("Wed, 03 Jan 2024 03:04:05 GMT"));
    assert_eq!(expires(&server, "/h").1, age("no-cache"));
    assert_eq!(expires(&server, "/j"), (Some(0), age("max-age=0")));
    let k = get(server.port(), "/k");
    assert_eq!(k.header_all("cache-control"), ["no-cache", "public"]);
    assert_eq!(get(server.port(), "/l").header("expires"), None);
}

#[test]
fn expires_at_a_time_of_day() {
    let server = Server::builder("server { listen {port}; root {root}/html; expires @23h30m; }")
        .file("html/f", "x")
        .environment("TZ", "UTC")
        .start();
    let response = get(server.port(), "/f");
    let value = response.header("expires").expect("an Expires");
    assert!(value.ends_with(" 23:30:00 GMT"), "{value}");
    let (difference, cache) = expires(&server, "/f");
    let difference = difference.expect("a difference");
    assert!((0..=86_400).contains(&difference), "{difference}");
    assert_eq!(cache, Some(format!("max-age={difference}")));
}

#[test]
fn expires_by_content_type_through_a_map() {
    Cases::new(
        "map $sent_http_content_type $when { default off; text/html epoch; text/css max; ~image/ max; }
         server { listen {port}; root {root}/html; types { text/html html; text/css css; image/png png; text/plain txt; }
            expires $when; }",
    )
    .show(&["expires", "cache-control"])
    .file("html/a.html", "h")
    .file("html/a.css", "c")
    .file("html/a.png", "p")
    .file("html/a.txt", "t")
    .get("/a.html", "200 h [expires: Thu, 01 Jan 1970 00:00:01 GMT] [cache-control: no-cache]")
    .get("/a.css", "200 c [expires: Thu, 31 Dec 2037 23:55:55 GMT] [cache-control: max-age=315360000]")
    .get("/a.png", "200 p [expires: Thu, 31 Dec 2037 23:55:55 GMT] [cache-control: max-age=315360000]")
    .get("/a.txt", "200 t")
    .check();
}

#[test]
fn expires_applies_to_not_modified_and_partial_answers() {
    Cases::new("server { listen {port}; root {root}/html; expires max; }")
        .show(&["cache-control"])
        .file("html/f", "0123456789")
        .get_with(
            "/f",
            "If-Modified-Since: Tue, 02 Jan 2024 03:04:05 GMT",
            "304 [cache-control: max-age=315360000]",
        )
        .get_with("/f", "Range: bytes=0-1", "206 01 [cache-control: max-age=315360000]")
        .check();
}
