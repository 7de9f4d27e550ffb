//! Bodies of PROPFIND, PROPPATCH and LOCK: XML from anybody, within bounds.
//!
//! A body is read into a small tree, whose size is bounded by that of the body and whose depth by [`DEEPEST`]. A document
//! type declaration is refused, so that no entity but XML's own five can be used; names are checked because they go out
//! again in answers.

use quick_xml::NsReader;
use quick_xml::escape::{resolve_xml_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;

use crate::message::Status;

use super::markup;

/// The most that a body may have, in bytes: a client asks for some dozens of properties.
pub const BODY_BYTES: u64 = 32 * 1024;
/// How deep elements may lie in one another.
const DEEPEST: usize = 24;
/// Properties that one request may name; each comes back for each file of a folder.
const MOST_PROPERTIES: usize = 64;
/// What may be said of a lock's owner, in bytes.
const OWNER_BYTES: usize = 1024;

/// The namespace of RFC 4918.
pub const DAV: &str = "DAV:";

/// The name of an element: its namespace, empty for none, and its local name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The namespace.
    pub space: String,
    /// The name within it.
    pub local: String,
}

impl Name {
    fn is(&self, local: &str) -> bool {
        self.space == DAV && self.local == local
    }
}

/// What a PROPFIND asks for (RFC 4918 section 14.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Propfind {
    /// What there is, and these.
    All(Vec<Name>),
    /// The names of what there is.
    Names,
    /// These.
    These(Vec<Name>),
}

/// What a LOCK asks for (RFC 4918 section 14.11).
#[derive(Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// Whether the lock is an exclusive one for writing.
    pub is_exclusive_write: bool,
    /// Who the client says it is, as XML that needs nothing around it.
    pub owner: Vec<u8>,
}

/// Why a body can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is no XML, or it has a document type declaration.
    Malformed,
    /// It is not what belongs here.
    Unexpected,
    /// It has more than we take.
    TooMuch,
}

impl BodyError {
    /// The status for the client.
    pub fn status(self) -> Status {
        match self {
            BodyError::Malformed | BodyError::Unexpected => Status::BAD_REQUEST,
            BodyError::TooMuch => Status::CONTENT_TOO_LARGE,
        }
    }
}

/// Reads the body of a PROPFIND; an empty one asks for all.
pub fn parse_propfind(body: &[u8]) -> Result<Propfind, BodyError> {
    if body.trim_ascii().is_empty() {
        return Ok(Propfind::All(Vec::new()));
    }
    let root = read(body)?;
    if !root.name.is("propfind") {
        return Err(BodyError::Unexpected);
    }
    let mut asked = None;
    let mut also = Vec::new();
    for child in root.elements() {
        // What is not known is passed over (RFC 4918 section 17).
        let one = match &child.name {
            name if name.is("prop") => Propfind::These(child.names()?),
            name if name.is("allprop") => Propfind::All(Vec::new()),
            name if name.is("propname") => Propfind::Names,
            name if name.is("include") => {
                also = child.names()?;
                continue;
            }
            _ => continue,
        };
        if asked.replace(one).is_some() {
            return Err(BodyError::Unexpected);
        }
    }
    match asked {
        Some(Propfind::All(_)) => Ok(Propfind::All(also)),
        Some(asked) => Ok(asked),
        None => Err(BodyError::Unexpected),
    }
}

/// Reads the body of a PROPPATCH: the names of all properties that it would set or remove.
pub fn parse_proppatch(body: &[u8]) -> Result<Vec<Name>, BodyError> {
    let root = read(body)?;
    if !root.name.is("propertyupdate") {
        return Err(BodyError::Unexpected);
    }
    let mut names = Vec::new();
    for change in root.elements().filter(|change| change.name.is("set") || change.name.is("remove")) {
        for properties in change.elements().filter(|child| child.name.is("prop")) {
            for name in properties.names()? {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            if names.len() > MOST_PROPERTIES {
                return Err(BodyError::TooMuch);
            }
        }
    }
    if names.is_empty() { Err(BodyError::Unexpected) } else { Ok(names) }
}

/// Reads the body of a LOCK.
pub fn parse_lock(body: &[u8]) -> Result<LockInfo, BodyError> {
    let root = read(body)?;
    if !root.name.is("lockinfo") {
        return Err(BodyError::Unexpected);
    }
    let says = |outer: &str, inner: &str| {
        root.elements()
            .any(|child| child.name.is(outer) && child.elements().any(|grandchild| grandchild.name.is(inner)))
    };
    let mut owner = Vec::new();
    if let Some(element) = root.elements().find(|child| child.name.is("owner")) {
        element.write_content(&mut owner);
    }
    if owner.len() > OWNER_BYTES {
        return Err(BodyError::TooMuch);
    }
    Ok(LockInfo { is_exclusive_write: says("lockscope", "exclusive") && says("locktype", "write"), owner })
}

/// An element without its attributes.
#[derive(Debug)]
pub(super) struct Element {
    pub name: Name,
    pub content: Vec<Node>,
}

/// What is in an element.
#[derive(Debug)]
pub(super) enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// The elements within it, without the text between them.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.content.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The names of the elements in it, each once.
    fn names(&self) -> Result<Vec<Name>, BodyError> {
        let mut names: Vec<Name> = Vec::new();
        for element in self.elements() {
            if !names.contains(&element.name) {
                names.push(element.name.clone());
            }
            if names.len() > MOST_PROPERTIES {
                return Err(BodyError::TooMuch);
            }
        }
        Ok(names)
    }

    /// Appends what is in it as XML that needs nothing around it.
    fn write_content(&self, out: &mut Vec<u8>) {
        for node in &self.content {
            match node {
                Node::Text(text) => markup::append_text(out, text.as_bytes()),
                Node::Element(element) => {
                    markup::open(out, &element.name);
                    element.write_content(out);
                    markup::close(out, &element.name);
                }
            }
        }
    }
}

/// Reads a document whole.
pub(super) fn read(body: &[u8]) -> Result<Element, BodyError> {
    if body.len() as u64 > BODY_BYTES {
        return Err(BodyError::TooMuch);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyError::Malformed)?;
    if !text.chars().all(is_character) {
        return Err(BodyError::Malformed);
    }
    let mut reader = NsReader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        let (space, event) = reader.read_resolved_event().map_err(|_| BodyError::Malformed)?;
        match event {
            Event::Start(start) => {
                if open.len() == DEEPEST {
                    return Err(BodyError::TooMuch);
                }
                open.push(Element { name: name_of(&space, &start)?, content: Vec::new() });
            }
            Event::Empty(start) => {
                let element = Element { name: name_of(&space, &start)?, content: Vec::new() };
                settle(element, &mut open, &mut root)?;
            }
            Event::End(_) => {
                let element = open.pop().ok_or(BodyError::Malformed)?;
                settle(element, &mut open, &mut root)?;
            }
            Event::Text(text) => add_text(&text.xml10_content(), &mut open)?,
            Event::CData(text) => add_text(&text.xml10_content(), &mut open)?,
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|_| BodyError::Malformed)?;
                match character {
                    Some(character) if is_character(character) => {
                        add_text(character.encode_utf8(&mut [0; 4]), &mut open)?;
                    }
                    Some(_) => return Err(BodyError::Malformed),
                    None => {
                        add_text(resolve_xml_entity(&reference).ok_or(BodyError::Malformed)?, &mut open)?;
                    }
                }
            }
            Event::DocType(_) => return Err(BodyError::Malformed),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        _ => Err(BodyError::Malformed),
    }
}

/// Puts a finished element where it belongs.
fn settle(element: Element, open: &mut [Element], root: &mut Option<Element>) -> Result<(), BodyError> {
    match open.last_mut() {
        Some(parent) => parent.content.push(Node::Element(element)),
        None if root.is_some() => return Err(BodyError::Malformed),
        None => *root = Some(element),
    }
    Ok(())
}

fn add_text(text: &str, open: &mut [Element]) -> Result<(), BodyError> {
    match open.last_mut().map(|element| &mut element.content) {
        Some(content) => match content.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ => content.push(Node::Text(text.to_owned())),
        },
        None if text.trim().is_empty() => {}
        None => return Err(BodyError::Malformed),
    }
    Ok(())
}

fn name_of(space: &ResolveResult<'_>, start: &BytesStart<'_>) -> Result<Name, BodyError> {
    let qualified = start.name();
    let local = qualified.local_name();
    let has_prefix = qualified.as_ref().contains(':');
    let space = match space {
        ResolveResult::Bound(space) => unescape(space.as_ref()).map_err(|_| BodyError::Malformed)?.into_owned(),
        ResolveResult::Unbound if !has_prefix => String::new(),
        _ => return Err(BodyError::Malformed),
    };
    // Namespaces of XML itself: their prefixes can't be declared, so no answer could name them.
    if space.starts_with("http://www.w3.org/XML/1998/namespace") || space.starts_with("http://www.w3.org/2000/xmlns/") {
        return Err(BodyError::Malformed);
    }
    if has_prefix && space.is_empty() || !is_name(local.as_ref()) || !space.chars().all(is_character) {
        return Err(BodyError::Malformed);
    }
    Ok(Name { space, local: local.as_ref().to_owned() })
}

/// Whether a text is a name without a colon. Beyond ASCII we take more than XML has, which breaks no answer.
fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    let is_letter = |character: char| character.is_ascii_alphabetic() || character == '_' || !character.is_ascii();
    first.is_some_and(is_letter)
        && characters.all(|character| {
            is_letter(character) || character.is_ascii_digit() || matches!(character, '-' | '.')
        })
}

/// Whether XML may have a character at all.
pub fn is_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(space: &str, local: &str) -> Name {
        Name { space: space.to_owned(), local: local.to_owned() }
    }

    #[test]
    fn a_propfind_names_properties_in_any_namespace() {
        let body = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<propfind xmlns=\"DAV:\"><prop>\n<getetag/>\
            <x:executable xmlns:x=\"http://apache.org/dav/props/?a&amp;b\"/><plain xmlns=''/><getetag/></prop></propfind>\n";
        let names = vec![
            name(DAV, "getetag"),
            name("http://apache.org/dav/props/?a&b", "executable"),
            name("", "plain"),
        ];
        assert_eq!(parse_propfind(body), Ok(Propfind::These(names)));
        assert_eq!(parse_propfind(b" \n"), Ok(Propfind::All(vec![])));
        assert_eq!(parse_propfind(b"<D:propfind xmlns:D='DAV:'><D:propname/></D:propfind>"), Ok(Propfind::Names));
        let body = b"<D:propfind xmlns:D='DAV:'><D:allprop/><D:new/><D:include><D:x/></D:include></D:propfind>";
        assert_eq!(parse_propfind(body), Ok(Propfind::All(vec![name(DAV, "x")])));
    }

    #[test]
    fn what_is_no_propfind_is_refused() {
        for body in [
            "<propfind><prop/></propfind>",
            "<D:propfind xmlns:D='DAV:'/>",
            "<D:prop xmlns:D='DAV:'/>",
            "<D:propfind xmlns:D='DAV:'><D:prop/><D:allprop/></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:prop><E:x/></D:prop></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:prop><E:x xmlns:E=''/></D:prop></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:prop><xml:a/></D:prop></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:prop><D:a:b/></D:prop></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:prop><D:a\"b/></D:prop></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/>",
            "<D:propfind xmlns:D='DAV:'><D:allprop></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/></D:propfind><a/>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/></D:propfind>text",
            "text",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><D:propfind xmlns:D='DAV:'><D:allprop/></D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/>&b;</D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/>&#0;</D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/>&#1;</D:propfind>",
            "<D:propfind xmlns:D='DAV:'><D:allprop/>\u{1}</D:propfind>",
            "<D:propfind xmlns:D='DAV:' xmlns:x='&b;'><x:prop/></D:propfind>",
        ] {
            let error = parse_propfind(body.as_bytes()).expect_err(body);
            assert_eq!(error.status(), Status::BAD_REQUEST, "{body}");
        }
        assert_eq!(parse_propfind(b"\xff"), Err(BodyError::Malformed));
    }

    #[test]
    fn bounds_are_refusals() {
        let within = |inner: String| format!("<D:propfind xmlns:D='DAV:'><D:prop>{inner}</D:prop></D:propfind>");
        let many = |count: usize| within((0..count).map(|number| format!("<D:p{number}/>")).collect());
        assert!(parse_propfind(many(MOST_PROPERTIES).as_bytes()).is_ok());
        assert_eq!(parse_propfind(many(MOST_PROPERTIES + 1).as_bytes()), Err(BodyError::TooMuch));
        let deep = |depth: usize| within("<D:a>".repeat(depth) + &"</D:a>".repeat(depth));
        assert!(parse_propfind(deep(DEEPEST - 2).as_bytes()).is_ok());
        assert_eq!(parse_propfind(deep(DEEPEST - 1).as_bytes()), Err(BodyError::TooMuch));
        let long = within(" ".repeat(BODY_BYTES as usize));
        assert_eq!(parse_propfind(long.as_bytes()), Err(BodyError::TooMuch));
        let spaces: String = (0..400).map(|number| format!(" xmlns:n{number}='u'")).collect();
        let body = within(format!("<D:a{spaces}/>"));
        assert_eq!(parse_propfind(body.as_bytes()), Err(BodyError::Malformed));
    }

    #[test]
    fn a_lock_says_what_it_is_and_whose() {
        let body = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
            <D:owner> <D:href a='b'>me &amp; &#60;<![CDATA[<you>]]></D:href><x xmlns='u\"'/></D:owner></D:lockinfo>";
        let info = parse_lock(body.as_bytes()).unwrap();
        assert!(info.is_exclusive_write);
        let owner = " <D:href xmlns:D=\"DAV:\">me &amp; &lt;&lt;you&gt;</D:href><n:x xmlns:n=\"u&quot;\"></n:x>";
        assert_eq!(String::from_utf8(info.owner).unwrap(), owner);
        let shared = body.replace("exclusive", "shared");
        assert!(!parse_lock(shared.as_bytes()).unwrap().is_exclusive_write);
        let long = body.replace("me", &"m".repeat(OWNER_BYTES));
        assert_eq!(parse_lock(long.as_bytes()), Err(BodyError::TooMuch));
    }

    #[test]
    fn a_proppatch_names_what_it_would_change() {
        let body = b"<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><D:a>1</D:a><D:b/></D:prop></D:set>\
            <D:remove><D:prop><D:c/><D:a/></D:prop></D:remove></D:propertyupdate>";
        let names: Vec<String> = parse_proppatch(body).unwrap().into_iter().map(|name| name.local).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(parse_proppatch(b""), Err(BodyError::Malformed));
        assert_eq!(parse_proppatch(b"<D:propertyupdate xmlns:D='DAV:'/>"), Err(BodyError::Unexpected));
    }
}
