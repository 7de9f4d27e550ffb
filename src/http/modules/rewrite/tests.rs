use crate::http::testing::{World, complaints};

fn location(body: &str) -> World {
    World::new(&format!("server {{ root /srv; {body} }}"))
}

#[test]
fn a_text_is_returned_with_its_variables() {
    let mut world = location("location /a { set $x 1; return 200 \"$x:$y\"; set $y 2; }");
    let reply = world.get("/a");
    assert_eq!((reply.status, reply.text()), (200, "1:"));
}
