//! `set_real_ip_from` and what goes by the address that it reveals.

use crate::util::{Cases, Client, Server};

const SHOW: &str = "return 200 \"$remote_addr:$remote_port $realip_remote_addr\";";

#[test]
fn fields_of_trusted_peers_name_the_client() {
    Cases::new(&format!(
        "server {{ listen {{port}}; set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.0.0/8;
          location /real {{ {SHOW} }}
          location /forwarded {{ return 200 $remote_addr; }}
          location /own {{ set_real_ip_from 127.0.0.1; return 200 $remote_addr; }} }}"
    ))
    .get_with("/real", "X-Real-IP: 1.2.3.4", "200 1.2.3.4: 127.0.0.1")
    .get_with("/real", "X-Real-IP: 1.2.3.4:5678", "200 1.2.3.4:5678 127.0.0.1")
    .get_with("/real", "X-Real-IP: 2001:db8::1", "200 2001:db8::1: 127.0.0.1")
    .get_with("/real", "X-Real-IP: [2001:db8::1]:99", "200 2001:db8::1:99 127.0.0.1")
    .get_with("/forwarded", "X-Real-IP: nonsense", "200 127.0.0.1")
    .get_with("/forwarded", "X-Forwarded-For: 1.2.3.4", "200 127.0.0.1")
    .check();
}

#[test]
fn a_chain_of_proxies_is_followed() {
    for (recursive, client) in [("on", "1.2.3.4"), ("off", "10.0.0.1")] {
        Cases::new(&format!(
            "server {{ listen {{port}}; set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.0.0/8;
              real_ip_header X-Forwarded-For; real_ip_recursive {recursive}; return 200 $remote_addr; }}"
        ))
        .get_with("/", "X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.1", &format!("200 {client}"))
        .get_with("/", "X-Forwarded-For: 1.2.3.4|X-Forwarded-For: 10.0.0.1", &format!("200 {client}"))
        .get_with("/", "X-Forwarded-For: 9.9.9.9, 1.2.3.4", "200 1.2.3.4")
        .check();
    }
}

#[test]
fn any_field_may_carry_the_address() {
    Cases::new(
        "server { listen {port}; set_real_ip_from 0.0.0.0/0; real_ip_header X-Client-Address; return 200 $remote_addr; }",
    )
    .get_with("/", "x-client-address: 1.2.3.4", "200 1.2.3.4")
    .get_with("/", "X-Real-IP: 1.2.3.4", "200 127.0.0.1")
    .check();
}

#[test]
fn rules_go_by_the_revealed_address_and_so_does_a_location_s_own() {
    Cases::new(
        "server { listen {port}; root {root};
          location /a { set_real_ip_from 127.0.0.1; allow 1.2.3.4; deny all; try_files /f =404; }
          location /b { allow 1.2.3.4; deny all; } }",
    )
    .file("f", "file")
    .get_with("/a", "X-Real-IP: 1.2.3.4", "200 file")
    .get_with("/a", "X-Real-IP: 1.2.3.5", "403")
    .get_with("/b", "X-Real-IP: 1.2.3.4", "403")
    .check();
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let server = Server::start(
        "server { listen {port} proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
          return 200 \"$remote_addr:$remote_port $realip_remote_addr\"; }",
    );
    let mut client = Client::connect(server.port());
    client.send(
        "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "1.2.3.4:1111 127.0.0.1");
}

#[test]
fn each_request_of_a_connection_has_its_own_client_and_logs_name_it() {
    let server = Server::start(
        "log_format f '$remote_addr $realip_remote_addr'; access_log {root}/access.log f;
         server { listen {port}; set_real_ip_from 127.0.0.1; return 200 $remote_addr; }",
    );
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 1.2.3.4\r\n\r\n");
    assert_eq!(client.read_response().text(), "1.2.3.4");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "127.0.0.1");
    assert_eq!(server.access_log_lines(2), ["1.2.3.4 127.0.0.1", "127.0.0.1 127.0.0.1"]);
}
