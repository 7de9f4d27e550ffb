use crate::base::level::Level;
use crate::http::change::{Change, ChangeFailure, Changed, Content, Depth, Put, Transfer};
use crate::http::testing::{MODIFIED, Reply, World, complaints};
use crate::message::Status;

const ALL: &str = "dav_methods PUT DELETE MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK OPTIONS;";
const NGINX: &str = "dav_methods PUT DELETE MKCOL COPY MOVE;";

fn world(server: &str) -> World {
    World::new(&format!("server {{ root /srv; {server} }}")).file("/srv/f", "file").directory("/srv/d/e")
}

fn ask(world: &mut World, line: &str, fields: &str, body: &str) -> Reply {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    world.send(&format!("{line} HTTP/1.1\r\nHost: example.com\r\n{fields}{length}\r\n{body}"))
}

/// The token in the answer to a LOCK.
fn token(reply: &Reply) -> String {
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    reply.field("Lock-Token").trim_matches(['<', '>']).to_owned()
}

const EXCLUSIVE: &str = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope>\
                         <D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>";

#[test]
fn methods_are_allowed_one_by_one() {
    let mut world = world("location / { dav_methods put DELETE; } location /no { dav_methods off; }");
    assert_eq!(ask(&mut world, "PUT /new", "", "x").status, 201);
    assert_eq!(ask(&mut world, "DELETE /f", "", "").status, 201);
    assert_eq!(world.changes.len(), 1);
    for line in ["MKCOL /x/", "PROPFIND /f", "LOCK /f", "OPTIONS /f", "PUT /no", "DELETE /no"] {
        assert_eq!(ask(&mut world, line, "", "").status, 405, "{line}");
    }
    assert_eq!(world.get("/f").text(), "file");
}

#[test]
fn the_directives_are_checked() {
    let told = |server: &str| complaints(&format!("server {{ listen 8080; {server} }}"));
    assert_eq!(told("dav_methods GET;")[0], "[emerg] invalid value \"GET\"");
    assert_eq!(told("dav_methods PUT put;")[0], "[warn] duplicate value \"put\"");
    assert_eq!(told("dav_access nobody:rw;")[0], "[emerg] invalid value \"nobody:rw\"");
    assert_eq!(told("min_delete_depth x;")[0], "[emerg] \"min_delete_depth\" directive invalid number");
    assert!(told("dav_methods off; dav_methods PUT;").is_empty());
}

#[test]
fn put_says_where_what_and_how() {
    let mut world = world(&format!(
        "{NGINX} dav_access group:rw all:r; location /full {{ create_full_put_path on; }}"
    ));
    let reply = ask(&mut world, "PUT /a%20b?x", "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n", "content");
    assert_eq!((reply.status, reply.field("Content-Length").as_str()), (201, "0"));
    assert_eq!(reply.field("Location"), "http://example.com/a%20b");
    let put = Put {
        path: b"/srv/a b".to_vec(),
        content: Content::Memory(b"content".to_vec()),
        modified: Some(1_700_000_000),
        mode: 0o664,
        folders: None,
    };
    assert_eq!(world.changes, [Change::Put(put)]);
    world.changed = Some(Ok(Changed::Done));
    let reply = ask(&mut world, "PUT /full/x", "Date: soon\r\n", "");
    assert_eq!((reply.status, reply.has("Location")), (204, false));
    let Change::Put(put) = &world.changes[0] else { panic!("{:?}", world.changes) };
    assert_eq!((put.folders, put.modified, &put.content), (Some(0o775), None, &Content::Memory(Vec::new())));
}

#[test]
fn what_nginx_refuses_is_refused() {
    let mut world = world(&format!("{NGINX} location /deep/ {{ min_delete_depth 3; }}"));
    for (line, fields, body, status) in [
        ("PUT /d/", "", "x", 409),
        ("PUT /x", "Content-Range: bytes 0-0/1\r\n", "x", 501),
        ("MKCOL /x", "", "", 409),
        ("MKCOL /x/", "", "x", 415),
        ("DELETE /x", "", "x", 415),
        ("DELETE /deep/x", "", "", 409),
        ("DELETE /deep/x/", "", "", 409),
        ("COPY /f", "", "", 400),
        ("COPY /f", "Destination: /x\r\n", "x", 415),
        ("COPY /f", "Destination: /x/\r\n", "", 409),
        ("COPY /f", "Destination: /x\r\nDepth: 1\r\n", "", 400),
        ("MOVE /f", "Destination: /x\r\nDepth: 0\r\n", "", 400),
        ("MOVE /f", "Destination: /x\r\nOverwrite: x\r\n", "", 400),
        ("MOVE /f", "Destination: /../x\r\n", "", 400),
        ("MOVE /f", "Destination: http://other/x\r\n", "", 400),
        ("MOVE /f", "Destination: http://example.com.other/x\r\n", "", 400),
        ("MOVE /f", "Destination: https://example.com/x\r\n", "", 400),
        ("MOVE /f", "Destination: http://example.com\r\n", "", 400),
        ("MOVE /f", "Destination: x\r\n", "", 400),
        ("MOVE /f", "Destination: ?\r\n", "", 400),
    ] {
        let reply = ask(&mut world, line, fields, body);
        assert_eq!((reply.status, world.changes.len()), (status, 0), "{line} {fields}");
    }
    let reply = ask(&mut world, "DELETE /deep/x", "", "");
    assert_eq!(reply.log_texts(), ["[error] insufficient URI depth:2 to DELETE"]);
    assert_eq!(ask(&mut world, "DELETE /deep/x/y/", "Depth: infinity\r\n", "").status, 201);
    assert_eq!(
        world.changes,
        [Change::Delete { path: b"/srv/deep/x/y/".to_vec(), depth: Depth::Infinity }]
    );
}

#[test]
fn copies_and_moves_go_where_the_destination_says() {
    let mut world = world(&format!("{NGINX} location /al/ {{ alias /other/; }}"));
    let mut to = |line: &str, fields: &str| {
        let reply = ask(&mut world, line, fields, "");
        match world.changes.pop() {
            Some(Change::Transfer(order)) => Ok(order),
            other => Err((reply.status, other)),
        }
    };
    let order = to("MOVE /f", "Destination: HTTP://Example.com:81/a%20b?c#d\r\nOverwrite: F\r\n").unwrap();
    let expected = Transfer {
        from: b"/srv/f".to_vec(),
        to: b"/srv/a b".to_vec(),
        moves: true,
        overwrite: false,
        deep: true,
        folders: 0o700,
    };
    assert_eq!(order, expected);
    let order = to("COPY /d/", "Destination: /x/\r\nDepth: 0\r\n").unwrap();
    assert_eq!((order.moves, order.overwrite, order.deep, &*order.to), (false, true, false, &b"/srv/x/"[..]));
    let order = to("COPY /al/a", "Destination: /al/b\r\n").unwrap();
    assert_eq!((&*order.from, &*order.to), (&b"/other/a"[..], &b"/other/b"[..]));
    // It has no place behind the alias.
    for outside in ["/x", "/a", "/al"] {
        let refused = to("COPY /al/a", &format!("Destination: {outside}\r\n")).unwrap_err();
        assert_eq!(refused, (400, None), "{outside}");
    }
}

#[test]
fn failures_are_answered_and_logged_as_they_came() {
    let mut world = world(NGINX);
    world.changed = Some(Err(ChangeFailure {
        status: Status::INSUFFICIENT_STORAGE,
        level: Level::Crit,
        message: "no room".to_owned(),
    }));
    let reply = ask(&mut world, "PUT /x", "", "x");
    assert_eq!((reply.status, reply.log_texts()), (507, vec!["[crit] no room"]));
}

#[test]
fn options_tell_what_may_be_done() {
    let reply = ask(&mut world(ALL), "OPTIONS /f", "", "");
    assert_eq!((reply.status, reply.field("DAV").as_str()), (200, "1, 2"));
    let allow = "GET, HEAD, PUT, DELETE, MKCOL, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK, OPTIONS";
    assert_eq!(reply.field("Allow"), allow);
    let reply = ask(&mut world("dav_methods OPTIONS PROPFIND;"), "OPTIONS /f", "", "");
    assert_eq!((reply.field("DAV").as_str(), reply.field("Allow").as_str()), ("1", "GET, HEAD, PROPFIND, OPTIONS"));
}

#[test]
fn propfind_tells_of_a_file() {
    let mut world = world(ALL);
    let body = "<propfind xmlns='DAV:'><prop><getcontentlength/><getetag/><x:y xmlns:x='u'/></prop></propfind>";
    let reply = ask(&mut world, "PROPFIND /f", "Depth: 1\r\n", body);
    assert_eq!((reply.status, reply.field("Content-Type").as_str()), (207, "application/xml; charset=utf-8"));
    let expected = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n\
         <D:response><D:href>/f</D:href><D:propstat><D:prop>\
         <D:getcontentlength>4</D:getcontentlength><D:getetag>&quot;{MODIFIED:x}-4&quot;</D:getetag></D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><n:y xmlns:n=\"u\"/></D:prop>\
         <D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>\n</D:multistatus>\n"
    );
    assert_eq!(reply.text(), expected);
    let all = ask(&mut world, "PROPFIND /f", "Depth: 0\r\n", "");
    for value in [
        "<D:displayname>f</D:displayname>",
        "<D:getcontenttype>text/plain</D:getcontenttype>",
        "<D:getlastmodified>Sun, 13 Sep 2020 12:26:40 GMT</D:getlastmodified>",
        "<D:resourcetype></D:resourcetype>",
        "<D:exclusive/>",
    ] {
        assert!(all.text().contains(value), "{value} in {}", all.text());
    }
    let names = "<D:propfind xmlns:D='DAV:'><D:propname/></D:propfind>";
    let names = ask(&mut world, "PROPFIND /d/", "Depth: 0\r\n", names);
    assert!(names.text().contains("<D:resourcetype/>") && !names.text().contains("getcontentlength"));
}

#[test]
fn propfind_tells_of_a_folder_and_what_is_in_it() {
    let mut world = world(ALL)
        .file("/srv/d/<a&b>.txt", "12345")
        .file("/srv/d/.thalweg-00", "unfinished")
        .file("/srv/d/.hidden", "");
    let hrefs = |reply: &Reply| {
        let text = reply.text().to_owned();
        let mut found: Vec<String> =
            text.split("<D:href>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect();
        found.sort();
        found
    };
    let reply = ask(&mut world, "PROPFIND /d", "Depth: 1\r\n", "");
    assert_eq!(hrefs(&reply), ["/d/", "/d/%3Ca%26b%3E.txt", "/d/.hidden", "/d/e/"]);
    assert!(reply.text().contains("<D:displayname>&lt;a&amp;b&gt;.txt</D:displayname>"));
    assert!(reply.text().contains("<D:collection/>"));
    assert_eq!(hrefs(&ask(&mut world, "PROPFIND /d/", "Depth: 0\r\n", "")), ["/d/"]);
}

#[test]
fn propfind_has_bounds() {
    let mut world = world(ALL);
    for fields in ["", "Depth: infinity\r\n"] {
        let reply = ask(&mut world, "PROPFIND /d/", fields, "");
        assert_eq!(reply.status, 403);
        assert!(reply.text().contains("<D:propfind-finite-depth/>"));
    }
    assert_eq!(ask(&mut world, "PROPFIND /d/", "Depth: 2\r\n", "").status, 400);
    assert_eq!(ask(&mut world, "PROPFIND /d/", "Depth: 0\r\n", "<a>").status, 400);
    assert_eq!(ask(&mut world, "PROPFIND /none", "Depth: 0\r\n", "").status, 404);
    assert_eq!(ask(&mut world, "PROPFIND /f/", "Depth: 0\r\n", "").status, 404);
    let long = " ".repeat(40_000);
    assert_eq!(ask(&mut world, "PROPFIND /d/", "Depth: 0\r\n", &long).status, 413);
}

#[test]
fn proppatch_refuses_each_property() {
    let mut world = world(ALL);
    let body = "<D:propertyupdate xmlns:D='DAV:' xmlns:x='u'><D:set><D:prop><x:a>1</x:a></D:prop></D:set>\
                <D:remove><D:prop><D:displayname/></D:prop></D:remove></D:propertyupdate>";
    let reply = ask(&mut world, "PROPPATCH /f", "", body);
    assert_eq!(reply.status, 207);
    let expected = "<D:href>/f</D:href><D:propstat><D:prop><n:a xmlns:n=\"u\"/><D:displayname/></D:prop>\
                    <D:status>HTTP/1.1 403 Forbidden</D:status></D:propstat>";
    assert!(reply.text().contains(expected), "{}", reply.text());
    assert_eq!(ask(&mut world, "PROPPATCH /none", "", body).status, 404);
    assert_eq!(ask(&mut world, "PROPPATCH /f", "", "").status, 400);
}

#[test]
fn a_lock_keeps_others_out_until_it_is_given_back() {
    let mut world = world(ALL);
    let reply = ask(&mut world, "LOCK /f", "Timeout: Infinite, Second-10\r\nDepth: 0\r\n", EXCLUSIVE);
    assert_eq!(reply.status, 200);
    for piece in ["<D:timeout>Second-3600</D:timeout>", "<D:owner>me</D:owner>", "<D:depth>0</D:depth>"] {
        assert!(reply.text().contains(piece), "{piece} in {}", reply.text());
    }
    let token = token(&reply);
    assert!(reply.text().contains(&token));
    let named = format!("If: (<{token}>)\r\n");
    let moves = "Destination: /f\r\n";
    assert_eq!(ask(&mut world, "LOCK /f", "", EXCLUSIVE).status, 423);
    for (line, fields, body) in [
        ("PUT /f", "", "x"),
        ("DELETE /f", "", ""),
        ("MOVE /f", "Destination: /g\r\n", ""),
        ("COPY /g", moves, ""),
        ("MOVE /g", moves, ""),
        ("DELETE /", "", ""),
        ("PROPPATCH /f", "", "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><D:a/></D:prop></D:set></D:propertyupdate>"),
    ] {
        let reply = ask(&mut world, line, fields, body);
        assert_eq!((reply.status, world.changes.len()), (423, 0), "{line}");
        let reply = ask(&mut world, line, &format!("{fields}If: </f> (<{token}>)\r\n"), body);
        assert!(matches!(reply.status, 201 | 207), "{line}: {}", reply.status);
        if matches!(&line[..4], "DELE" | "MOVE") {
            // The lock went with what it was on, or would have.
            break;
        }
    }
    assert_eq!(ask(&mut world, "COPY /f", "Destination: /g\r\n", "").status, 201);
    assert_eq!(ask(&mut world, "PUT /f", "", "x").status, 201);
    assert_eq!(ask(&mut world, "PUT /f", &named, "x").status, 412);
}

#[test]
fn who_names_a_lock_may_and_unlocks() {
    let mut world = world(ALL);
    let token = token(&ask(&mut world, "LOCK /d/", "", EXCLUSIVE));
    assert_eq!(ask(&mut world, "PUT /d/e/x", "", "x").status, 423);
    assert_eq!(ask(&mut world, "PUT /d/e/x", &format!("If: (<{token}>)\r\n"), "x").status, 201);
    let tagged = format!("If: <http://example.com/d/> (<{token}>)\r\n");
    assert_eq!(ask(&mut world, "PUT /d/e/x", &tagged, "x").status, 201);
    let found = ask(&mut world, "PROPFIND /d/e/", "Depth: 0\r\n", "");
    assert!(found.text().contains(&token) && found.text().contains("<D:lockroot><D:href>/d/</D:href>"));
    let other = "urn:uuid:00000000-0000-4000-8000-000000000000";
    for (field, status) in [
        (String::new(), 400),
        ("Lock-Token: x\r\n".to_owned(), 400),
        ("Lock-Token: <x>\r\n".to_owned(), 409),
        (format!("Lock-Token: <{other}>\r\n"), 409),
        (format!("Lock-Token: <{token}>\r\n"), 204),
        (format!("Lock-Token: <{token}>\r\n"), 409),
    ] {
        assert_eq!(ask(&mut world, "UNLOCK /d/", &field, "").status, status, "{field}");
    }
    assert_eq!(ask(&mut world, "PUT /d/e/x", "", "x").status, 201);
}

#[test]
fn locks_end_with_their_time_and_can_be_refreshed() {
    let mut world = world(ALL);
    let token = token(&ask(&mut world, "LOCK /f", "Timeout: Second-10\r\n", EXCLUSIVE));
    world.env.now.monotonic_ms += 9_000;
    let refresh = format!("Timeout: Second-20\r\nIf: (<{token}>)\r\n");
    let reply = ask(&mut world, "LOCK /f", &refresh, "");
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("<D:timeout>Second-20</D:timeout>"));
    world.env.now.monotonic_ms += 19_000;
    assert_eq!(ask(&mut world, "DELETE /f", "", "").status, 423);
    world.env.now.monotonic_ms += 1_000;
    assert_eq!(ask(&mut world, "DELETE /f", "", "").status, 201);
    assert_eq!(ask(&mut world, "LOCK /f", &refresh, "").status, 412);
    assert_eq!(ask(&mut world, "LOCK /f", "", "").status, 400);
}

#[test]
fn a_lock_on_nothing_makes_an_empty_file() {
    let mut world = world(ALL);
    let reply = ask(&mut world, "LOCK /new", "", EXCLUSIVE);
    assert_eq!(reply.status, 201);
    assert_eq!(world.changes, [Change::Claim { path: b"/srv/new".to_vec(), mode: 0o600 }]);
    world.changed = Some(Err(ChangeFailure::busy()));
    assert_eq!(ask(&mut world, "LOCK /other", "", EXCLUSIVE).status, 503);
    // It is not locked then.
    assert_eq!(ask(&mut world, "PUT /other", "", "x").status, 201);
}

#[test]
fn locks_that_are_not_to_be_had_are_refused() {
    let mut world = world(ALL);
    let shared = EXCLUSIVE.replace("exclusive", "shared");
    assert_eq!(ask(&mut world, "LOCK /f", "", &shared).status, 422);
    assert_eq!(ask(&mut world, "LOCK /f", "Depth: 1\r\n", EXCLUSIVE).status, 400);
    assert_eq!(ask(&mut world, "LOCK /f", "", "<a/>").status, 400);
    assert_eq!(ask(&mut world, "LOCK /f", "If: nonsense\r\n", EXCLUSIVE).status, 400);
}

#[test]
fn a_lock_is_its_user_s() {
    let mut world = world(ALL);
    let user = |name: &str| {
        let mut text = Vec::new();
        crate::base::base64::encode(&mut text, format!("{name}:x").as_bytes());
        format!("Authorization: Basic {}\r\n", String::from_utf8(text).unwrap())
    };
    let token = token(&ask(&mut world, "LOCK /f", &user("one"), EXCLUSIVE));
    let with_token = |name: &str| format!("{}If: (<{token}>)\r\n", user(name));
    assert_eq!(ask(&mut world, "PUT /f", &with_token("two"), "x").status, 423);
    assert_eq!(ask(&mut world, "PUT /f", &with_token("one"), "x").status, 201);
    let unlock = |name: &str| format!("{}Lock-Token: <{token}>\r\n", user(name));
    assert_eq!(ask(&mut world, "UNLOCK /f", &unlock("two"), "").status, 403);
    assert_eq!(ask(&mut world, "UNLOCK /f", &unlock("one"), "").status, 204);
}

#[test]
fn what_a_client_presumes_must_hold_where_locks_are() {
    let mut locking = world(ALL);
    let etag = format!("\"{MODIFIED:x}-4\"");
    for (condition, status) in [
        (format!("([{etag}])"), 201),
        (format!("(Not [{etag}])"), 412),
        ("([\"other\"])".to_owned(), 412),
        ("(<urn:x>) (Not <DAV:no-lock>)".to_owned(), 201),
        ("(<urn:x>)".to_owned(), 412),
        (format!("</d/> ([{etag}])"), 412),
        ("<http://other/> (Not <urn:x>)".to_owned(), 201),
    ] {
        let reply = ask(&mut locking, "PUT /f", &format!("If: {condition}\r\n"), "x");
        assert_eq!(reply.status, status, "{condition}");
    }
    // nginx does not look at the field.
    assert_eq!(ask(&mut world(NGINX), "PUT /f", "If: nonsense\r\n", "x").status, 201);
}

#[test]
fn a_locked_folder_alone_keeps_its_members() {
    let mut world = world(ALL).file("/srv/d/f", "");
    ask(&mut world, "LOCK /d/", "Depth: 0\r\n", EXCLUSIVE);
    assert_eq!(ask(&mut world, "PUT /d/f", "", "x").status, 201);
    assert_eq!(ask(&mut world, "PUT /d/new", "", "x").status, 423);
    assert_eq!(ask(&mut world, "DELETE /d/f", "", "").status, 423);
    assert_eq!(ask(&mut world, "MKCOL /d/new/", "", "").status, 423);
    assert_eq!(ask(&mut world, "LOCK /d/new", "", EXCLUSIVE).status, 423);
    assert_eq!(ask(&mut world, "PUT /d/e/new", "", "x").status, 201);
}
