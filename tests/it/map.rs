//! `map` with all its options.

use crate::util::{Cases, Server};

#[test]
fn exact_values_regexes_and_default() {
    Cases::new(
        r#"map $arg_a $b { default other; one 1; "two words" 2; ~^r(\d+)$ regex-$1; ~*^CASE case; "~^q(?<name>.)$" q-$name; '' empty; }
           server { listen {port}; return 200 $b; }"#,
    )
    .get("/?a=one", "200 1")
    .get("/?a=ONE", "200 1")
    .get("/?a=r12", "200 regex-12")
    .get("/?a=R12", "200 other")
    .get("/?a=casework", "200 case")
    .get("/?a=qx", "200 q-x")
    .get("/?a=", "200 empty")
    .get("/", "200 empty")
    .get("/?a=else", "200 other")
    .check();
}

#[test]
fn without_default_the_result_is_empty() {
    Cases::new("map $arg_a $b { one 1; } server { listen {port}; return 200 [$b]; }")
        .get("/?a=one", "200 [1]")
        .get("/?a=two", "200 []")
        .check();
}

#[test]
fn hostnames_match_as_server_names_do() {
    Cases::new(
        r"map $http_host $b { hostnames; default none; example.org exact; *.example.org below; www.* www; .dot.org dot; ~^re\. regex; }
          server { listen {port}; return 200 $b; }",
    )
    .host("example.org", "/", "200 exact")
    .host("a.b.example.org", "/", "200 below")
    .host("www.test", "/", "200 www")
    .host("dot.org", "/", "200 dot")
    .host("x.dot.org", "/", "200 dot")
    .host("re.test", "/", "200 regex")
    .host("EXAMPLE.org", "/", "200 exact")
    .host("example.org.", "/", "200 exact")
    .host("none", "/", "200 none")
    .check();
}

#[test]
fn the_source_may_be_several_variables_and_text() {
    Cases::new(
        "map $arg_a:$arg_b $both { x:y matched; default $arg_a+$arg_b; }
         map /p$uri $path { /p/one first; }
         server { listen {port}; return 200 $both,$path; }",
    )
    .get("/one?a=x&b=y", "200 matched,first")
    .get("/?a=1&b=2", "200 1+2,")
    .check();
}

#[test]
fn results_may_hold_variables_and_other_maps() {
    Cases::new(
        "map $arg_a $first { 1 $second; default none; }
         map $arg_b $second { default got-$arg_b-$uri; }
         server { listen {port}; return 200 $first; }",
    )
    .get("/u?a=1&b=2", "200 got-2-/u")
    .get("/u?a=2", "200 none")
    .check();
}

#[test]
fn a_map_is_computed_once_unless_volatile() {
    Cases::new(
        "map $arg_a $kept { default $args; }
         map $arg_a $fresh { volatile; default $args; }
         server { listen {port};
            set $one $kept; set $two $fresh; set $args a=2;
            return 200 $one,$kept,$two,$fresh; }",
    )
    .get("/?a=1", "200 a=1,a=1,a=1,a=2")
    .check();
}

#[test]
fn a_backslash_takes_away_the_special_meaning() {
    Cases::new(
        r"map $arg_a $b { \default word; \hostnames name; \~x tilde; default other; }
          server { listen {port}; return 200 $b; }",
    )
    .get("/?a=default", "200 word")
    .get("/?a=hostnames", "200 name")
    .get("/?a=~x", "200 tilde")
    .get("/?a=y", "200 other")
    .check();
}

#[test]
fn entries_may_come_from_a_file() {
    Cases::new(
        "map $arg_a $b { include entries.map; default other; } server { listen {port}; return 200 $b; }",
    )
    .file("entries.map", "one 1;\n~^t two;\n")
    .get("/?a=one", "200 1")
    .get("/?a=ten", "200 two")
    .get("/?a=x", "200 other")
    .check();
}

#[test]
fn the_first_regex_of_the_file_wins_and_exact_before_all() {
    Cases::new("map $arg_a $b { ~a first; ~ab second; abc exact; } server { listen {port}; return 200 $b; }")
        .get("/?a=ab", "200 first")
        .get("/?a=abc", "200 exact")
        .check();
}

#[test]
fn a_map_with_ten_thousand_entries_works() {
    let mut text = String::from("map_hash_max_size 65536; map_hash_bucket_size 128; map $arg_a $b {\n");
    for number in 0..10_000 {
        text.push_str(&format!("key{number} value{number};\n"));
    }
    text.push_str("} server { listen {port}; return 200 $b; }");
    Cases::new(&text).get("/?a=key9999", "200 value9999").get("/?a=key10000", "200").check();
}

#[test]
fn a_map_in_conditions_redirects_and_headers() {
    Cases::new(
        "map $http_user_agent $is_robot { default 0; ~*bot 1; }
         map $uri $moved { default ''; /old /new; /older /newer?x=1; }
         server { listen {port}; add_header X-Robot $is_robot always;
            if ($moved) { return 301 $moved; }
            if ($is_robot) { return 403; }
            return 200 ok; }",
    )
    .show(&["x-robot"])
    .get("/x", "200 ok [x-robot: 0]")
    .get("/old", "301 http://localhost:{port}/new [x-robot: 0]")
    .get("/older", "301 http://localhost:{port}/newer?x=1 [x-robot: 0]")
    .get_with("/x", "User-Agent: Somebot/1", "403 [x-robot: 1]")
    .check();
}

#[test]
fn errors_in_a_map_are_reported_with_their_place() {
    let output = Server::builder("http {\n map $a $b {\n  one 1;\n  one 2;\n  ~( x;\n }\n}").run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("conflicting parameter \"one\""), "{}", output.stderr);
    assert!(output.stderr.contains("nginx.conf:4"), "{}", output.stderr);
}
