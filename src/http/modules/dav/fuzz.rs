//! Laws of what comes in and goes out as XML, for any bytes whatever.

use std::sync::Arc;

use crate::http::zones::locks::{Lock, Token};

use super::bodies::{self, Element, Name, Node, Propfind};
use super::markup;
use super::properties::{Resource, append_response};

/// Reads a body in every way that there is, and answers it about a resource of this name:
///
/// - nothing panics, whatever the body is;
/// - what is asked for comes back by its name, each name once;
/// - answers are well-formed, whatever names and owners are, and so within what we would read ourselves.
pub fn fuzz_bodies(name: &[u8], body: &[u8]) {
    let owner = match bodies::parse_lock(body) {
        Ok(info) => info.owner,
        Err(_) => Vec::new(),
    };
    let lock = Lock {
        token: Token::of_random(u128::MAX / 3),
        deep: true,
        user: Box::default(),
        owner: owner.into(),
        root: Arc::from(name),
        timeout_secs: 10,
        until_ms: 10_000,
    };
    let _ = bodies::parse_proppatch(body);
    let all = Propfind::All(Vec::new());
    answer(&all, name, Some(&lock));
    if let Ok(asked) = bodies::parse_propfind(body) {
        let answered = answer(&asked, name, None);
        if let Propfind::These(names) = &asked {
            let mut answered: Vec<&Name> = answered.iter().collect();
            assert_eq!(answered.len(), names.len(), "each is answered once");
            answered.retain(|name| !names.contains(name));
            assert!(answered.is_empty(), "nothing else is answered: {answered:?}");
        }
    }
}

/// The names of the properties in an answer about a file of this name.
fn answer(asked: &Propfind, name: &[u8], lock: Option<&Lock>) -> Vec<Name> {
    let uri = [b"/", name].concat();
    let resource = Resource {
        uri: &uri,
        is_folder: name.ends_with(b"/"),
        size: name.len() as u64,
        modified_secs: 0,
        content_type: name,
        has_etag: true,
        lock,
        lockable: true,
        now_ms: 0,
    };
    let mut out = markup::DECLARATION.to_vec();
    out.extend_from_slice(b"<D:multistatus xmlns:D=\"DAV:\">");
    append_response(&mut out, asked, &resource);
    out.extend_from_slice(b"</D:multistatus>");
    // Longer ones are right as well, but not for us to read.
    if out.len() as u64 > bodies::BODY_BYTES {
        return match asked {
            Propfind::These(names) => names.clone(),
            _ => Vec::new(),
        };
    }
    let shown = || String::from_utf8_lossy(&out).into_owned();
    let read = bodies::read(&out).unwrap_or_else(|error| panic!("{error:?}: {}", shown()));
    let response = child(&read, "response").unwrap_or_else(|| panic!("no response: {}", shown()));
    let href = text(child(response, "href").expect("every response has one"));
    let mut path = Vec::new();
    assert!(crate::base::percent::decode(&mut path, href.as_bytes()) && path == uri, "the path comes back");
    let propstats = response.elements().filter(|element| element.name.local == "propstat");
    let properties = propstats.filter_map(|propstat| child(propstat, "prop"));
    properties.flat_map(Element::elements).map(|element| element.name.clone()).collect()
}

fn child<'a>(element: &'a Element, local: &str) -> Option<&'a Element> {
    element.elements().find(|child| child.name.local == local)
}

fn text(element: &Element) -> String {
    let pieces = element.content.iter().map(|node| match node {
        Node::Text(text) => text.as_str(),
        Node::Element(_) => "",
    });
    pieces.collect()
}
