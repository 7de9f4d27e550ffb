//! Field lines over one text buffer.

use super::FieldName;

/// A piece of a head's text buffer: byte offsets `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// Bytes that it covers.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it covers nothing.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One field line: a name and a value, both in the owning [`Fields`]' text.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name as sent (case kept).
    pub name: Span,
    /// The value without surrounding whitespace.
    pub value: Span,
    /// Which known field this is.
    pub id: FieldName,
}

/// An ordered list of field lines with their text. Cleared and used again, it keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
}

impl Fields {
    /// Forgets all lines and text, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
    }

    /// Forgets all lines; stored text stays, so that spans to it hold.
    pub fn clear_lines(&mut self) {
        self.list.clear();
    }

    /// Bytes of memory held, for bounds on recycled heads.
    pub fn capacity(&self) -> usize {
        self.text.capacity() + self.list.capacity() * size_of::<Field>()
    }

    /// Copies `bytes` into the text and names the place.
    #[inline]
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        Span { start, end: self.text.len() as u32 }
    }

    /// Copies what `write` appends into the text and names the place.
    pub fn store_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> (Span, R) {
        let start = self.text.len() as u32;
        let result = write(&mut self.text);
        (Span { start, end: self.text.len() as u32 }, result)
    }

    /// The bytes of a span of this text.
    pub fn get(&self, span: Span) -> &[u8] {
        &self.text[span.start as usize..span.end as usize]
    }

    /// All text stored so far (a request head's raw bytes come first).
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Adds a line at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let name_span = self.store(name);
        let value_span = self.store(value);
        self.list.push(Field { name: name_span, value: value_span, id: FieldName::of(name) });
    }

    /// Adds a line whose text is stored already.
    pub fn push_stored(&mut self, name: Span, value: Span) {
        let id = FieldName::of(self.get(name));
        self.list.push(Field { name, value, id });
    }

    /// Adds a line with a known name, written in its usual case.
    pub fn push_known(&mut self, id: FieldName, value: &[u8]) {
        let name = self.store(id.as_str().as_bytes());
        let value = self.store(value);
        self.list.push(Field { name, value, id });
    }

    /// Puts in the place of everything what was [`Fields::text`] and [`Fields::list`] before.
    pub fn restore(&mut self, text: &[u8], lines: &[Field]) {
        self.clear();
        self.text.extend_from_slice(text);
        self.list.extend_from_slice(lines);
    }

    /// The lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Field, &[u8], &[u8])> {
        self.list.iter().map(|field| (field, self.get(field.name), self.get(field.value)))
    }

    /// The lines in order, as spans.
    pub fn list(&self) -> &[Field] {
        &self.list
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Value of the first line with this known name.
    pub fn first(&self, id: FieldName) -> Option<&[u8]> {
        self.list.iter().find(|field| field.id == id).map(|field| self.get(field.value))
    }

    /// Values of every line with this known name, in order.
    pub fn all(&self, id: FieldName) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |field| field.id == id).map(|field| self.get(field.value))
    }

    /// Values of every line named `name` (ASCII case ignored), in order.
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.list
            .iter()
            .filter(move |field| self.get(field.name).eq_ignore_ascii_case(name))
            .map(|field| self.get(field.value))
    }

    /// Removes every line named `name` (ASCII case ignored); the text stays until `clear`.
    pub fn remove(&mut self, name: &[u8]) {
        let text = &self.text;
        self.list.retain(|field| {
            !text[field.name.start as usize..field.name.end as usize].eq_ignore_ascii_case(name)
        });
    }

    /// Keeps the lines that `keep` says, by known name and name; the text of the others stays until `clear`.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldName, &[u8]) -> bool) {
        let text = &self.text;
        self.list.retain(|field| keep(field.id, &text[field.name.start as usize..field.name.end as usize]));
    }

    /// Replaces every line named `name` by one with this value, at the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.push(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_and_are_found_without_regard_to_case() {
        let mut fields = Fields::default();
        fields.push(b"Host", b"a");
        fields.push(b"X-One", b"1");
        fields.push(b"x-one", b"2");
        assert_eq!(fields.first(FieldName::Host), Some(&b"a"[..]));
        assert_eq!(fields.named(b"X-ONE").collect::<Vec<_>>(), [b"1", b"2"]);
        fields.set(b"x-One", b"3");
        assert_eq!(fields.named(b"x-one").collect::<Vec<_>>(), [b"3"]);
        assert_eq!(fields.len(), 2);
    }
}
