//! `split_clients`: the same clients in the same groups as with nginx.

use crate::util::{Cases, Parity, Server};

#[test]
fn the_groups_are_those_of_nginx() {
    let paths: Vec<String> =
        (0..60).map(|number| format!("/?a=client{number}{}", "x".repeat(number % 7))).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    Parity::new(
        "split_clients \"$arg_a+AAA\" $b { 5% five; 0.5% half; 33.33% third; * rest; }
         server { listen {port}; return 200 $b; }",
    )
    .get(&paths)
    .check();
}

#[test]
fn what_no_share_covers_is_empty() {
    Cases::new("split_clients $uri $b { 0.01% x; } server { listen {port}; return 200 [$b]; }")
        .get("/", "200 []")
        .check();
}

#[test]
fn shares_beyond_all_are_refused() {
    let output = Server::builder("split_clients $uri $b {\n 60% a;\n 50% b;\n }").run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("percent total is greater than 100%"), "{}", output.stderr);
}
