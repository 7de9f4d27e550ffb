//! `geo` with networks and ranges.

use crate::util::{Cases, Server};

#[test]
fn networks_of_both_families() {
    Cases::new(
        "geo $arg_a $b { default d; 10.0.0.0/8 ten; 10.1.0.0/16 one; 10.1.2.3 host; 2001:db8::/32 six; ::/0 all6; }
         server { listen {port}; return 200 [$b]; }",
    )
    .get("/?a=10.2.0.1", "200 [ten]")
    .get("/?a=10.1.2.4", "200 [one]")
    .get("/?a=10.1.2.3", "200 [host]")
    .get("/?a=11.0.0.0", "200 [d]")
    .get("/?a=2001:db8::1", "200 [six]")
    .get("/?a=2001:db9::1", "200 [all6]")
    .get("/?a=::ffff:10.1.2.3", "200 [host]")
    .get("/?a=nonsense", "200 [d]")
    .get("/", "200 [d]")
    .check();
}

#[test]
fn ranges_in_ranges() {
    Cases::new(
        "geo $arg_a $b { ranges; default d; 10.0.0.0-10.255.255.255 a; 10.1.0.0-10.1.255.255 b; include more.geo; }
         server { listen {port}; return 200 [$b]; }",
    )
    .file("more.geo", "255.255.0.0-255.255.255.254 last;\ndelete 10.1.0.0-10.1.255.255;\n10.1.0.0-10.1.0.9 c;\n")
    .get("/?a=10.0.0.0", "200 [a]")
    .get("/?a=10.1.0.9", "200 [c]")
    .get("/?a=10.1.0.10", "200 [d]")
    .get("/?a=10.2.0.0", "200 [a]")
    .get("/?a=11.0.0.0", "200 [d]")
    .get("/?a=255.255.255.254", "200 [last]")
    .get("/?a=2001:db8::1", "200 [d]")
    .get("/?a=x", "200 [d]")
    .check();
}

#[test]
fn the_client_s_address_and_proxies_before_it() {
    Cases::new(
        "geo $b { default other; 127.0.0.0/8 local; 10.0.0.0/8 ten; proxy 127.0.0.1; proxy 10.0.0.9; }
         geo $c { default other; 127.0.0.0/8 local; 10.0.0.0/8 ten; proxy 127.0.0.1; proxy 10.0.0.9; proxy_recursive; }
         server { listen {port}; return 200 $b,$c; }",
    )
    .get("/", "200 local,local")
    .get_with("/", "X-Forwarded-For: 10.0.0.1", "200 ten,ten")
    .get_with("/", "X-Forwarded-For: 192.0.2.1, 10.0.0.9", "200 ten,other")
    .get_with("/", "X-Forwarded-For: nobody", "200 local,local")
    .check();
}

#[test]
fn a_volatile_value_is_looked_up_each_time() {
    Cases::new(
        "geo $arg_a $b { volatile; 1.0.0.0/8 one; 2.0.0.0/8 two; }
         server { listen {port}; set $first $b; set $args a=2.0.0.1; return 200 $first-$b; }",
    )
    .only_ours("`volatile` is younger than Debian's nginx")
    .get("/?a=1.0.0.1", "200 one-two")
    .check();
}

#[test]
fn mistakes_are_reported_with_their_place() {
    let output = Server::builder("http {\n geo $b {\n  1.2.3.4/8 x;\n  foo y;\n }\n}").run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("invalid network \"foo\""), "{}", output.stderr);
    assert!(output.stderr.contains("nginx.conf:4"), "{}", output.stderr);
    assert!(output.stderr.contains("low address bits of 1.2.3.4/8 are meaningless"), "{}", output.stderr);
}
