use crate::http::testing::{World, complaints};
use crate::http::upstream_call::conditions;

const KEY: &str = "set $memcached_key $uri?$args;";

fn world(settings: &str) -> World {
    World::new(&format!(
        "types {{ text/html html; }} server {{ location / {{ {KEY} memcached_pass 127.0.0.1:11211; {settings} }} \
         location = /fallback {{ return 200 fallback; }} }}"
    ))
}

#[test]
fn a_value_is_the_response_with_the_type_of_its_name() {
    let mut world = world("");
    let reply = world.upstream("VALUE /a%20b.html?c 0 5\r\nhello\r\nEND\r\n").get("/a%20b.html?c");
    assert_eq!(world.calls[0].head, "get /a%20b.html?c\r\n");
    assert_eq!((reply.status, reply.text()), (200, "hello"));
    assert_eq!((&*reply.field("content-type"), &*reply.field("content-length")), ("text/html", "5"));
    assert!(!reply.has("memcached-flags") && !reply.has("content-encoding"));
}

#[test]
fn a_key_without_a_value_is_a_404_with_its_page() {
    let mut world = world("error_page 404 502 = /fallback;");
    assert_eq!(world.upstream("END\r\n").get("/x").text(), "fallback");
    assert_eq!(world.upstream_fails("connect_refused", 502).get("/x").text(), "fallback");
    let reply = self::world("").upstream("END\r\n").get("/x");
    assert!(reply.status == 404 && reply.text().contains("404 Not Found"));
}

#[test]
fn a_flag_says_that_the_value_is_compressed() {
    let mut world = world("memcached_gzip_flag 2;");
    let encoding = |world: &mut World, flags: u32| {
        world.upstream(&format!("VALUE /? {flags} 1\r\nx\r\nEND\r\n")).get("/").field("content-encoding")
    };
    assert_eq!(encoding(&mut world, 3), "gzip");
    assert_eq!(encoding(&mut world, 1), "");
}

#[test]
fn only_what_has_a_key_is_asked_for() {
    let reply = world("").send("POST / HTTP/1.0\r\n\r\n");
    assert_eq!(reply.status, 405);
    let mut keyless =
        World::new("server { location / { set $memcached_key $arg_k; memcached_pass unix:/s; } }");
    let reply = keyless.get("/");
    let expected = ["[error] the \"$memcached_key\" variable is not set"];
    assert_eq!((reply.status, reply.log_texts()), (500, expected.to_vec()));
    keyless.upstream("VALUE a%0D%0Aset%20x 0 0\r\n\r\nEND\r\n");
}

#[test]
fn conditions_have_memcached_s_names() {
    let mut world = world("memcached_next_upstream not_found invalid_response;");
    world.upstream("END\r\n").get("/");
    let wanted = conditions::HTTP_404 | conditions::INVALID_HEADER;
    assert_eq!(world.calls[0].call.conduct.next_upstream, wanted);
}

/// The words are those of nginx 1.22.
#[test]
fn mistakes_are_reported_in_nginx_s_words() {
    let location = |content: &str| format!("server {{ location / {{ {content} }} }}");
    for (content, words) in [
        ("memcached_pass 127.0.0.1:11211/x;", "invalid host in upstream \"127.0.0.1:11211/x\""),
        ("memcached_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
        ("memcached_pass unix:/a;", "unknown \"memcached_key\" variable"),
        ("memcached_next_upstream http_500;", "invalid value \"http_500\""),
        ("memcached_gzip_flag x;", "\"memcached_gzip_flag\" directive invalid number"),
    ] {
        assert_eq!(complaints(&location(content)), [format!("[emerg] {words}")], "{content}");
    }
}
