//! A reader of DER (X.690), as much as certificates and encrypted keys need. It copies nothing and trusts nothing.

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDer;

/// Tags that are asked for.
pub mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OID: u8 = 0x06;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const TELETEX_STRING: u8 = 0x14;
    pub const IA5_STRING: u8 = 0x16;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const UNIVERSAL_STRING: u8 = 0x1c;
    pub const BMP_STRING: u8 = 0x1e;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The tag byte; tags of several bytes are refused.
    pub tag: u8,
    /// What is in it.
    pub content: &'a [u8],
    /// The same with tag and length in front.
    pub whole: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Result<Element<'a>, BadDer> {
        let [tag, first, ..] = *self.rest else { return Err(BadDer) };
        if tag & 0x1f == 0x1f {
            return Err(BadDer);
        }
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            // Four bytes of length are more than any certificate has.
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let digits = self.rest.get(2..2 + count).ok_or(BadDer)?;
                let length = digits.iter().fold(0usize, |sum, digit| sum << 8 | usize::from(*digit));
                (2 + count, length)
            }
            _ => return Err(BadDer),
        };
        let end = length.checked_add(header).ok_or(BadDer)?;
        let whole = self.rest.get(..end).ok_or(BadDer)?;
        self.rest = &self.rest[end..];
        Ok(Element { tag, content: &whole[header..], whole })
    }

    /// The next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<Element<'a>, BadDer> {
        match self.any()? {
            element if element.tag == tag => Ok(element),
            _ => Err(BadDer),
        }
    }

    /// The next element if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, BadDer> {
        if self.peek() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// A reader within the next element, which must be a SEQUENCE.
    pub fn sequence(&mut self) -> Result<Reader<'a>, BadDer> {
        Ok(self.expect(tag::SEQUENCE)?.inside())
    }

    /// A small number that is not negative.
    pub fn small_integer(&mut self) -> Result<u32, BadDer> {
        let content = self.expect(tag::INTEGER)?.content;
        let digits = content.strip_prefix(&[0]).unwrap_or(content);
        match (content, digits.len()) {
            ([], _) => Err(BadDer),
            ([first, ..], 0..=4) if *first < 0x80 => {
                Ok(digits.iter().fold(0, |sum, digit| sum << 8 | u32::from(*digit)))
            }
            _ => Err(BadDer),
        }
    }
}

impl<'a> Element<'a> {
    /// A reader of what is in it.
    pub fn inside(self) -> Reader<'a> {
        Reader::new(self.content)
    }
}

/// Appends an object identifier in digits and dots.
pub fn append_oid(content: &[u8], out: &mut Vec<u8>) {
    use std::io::Write;
    let mut first = true;
    let mut value: u128 = 0;
    for byte in content {
        if value >> 120 != 0 {
            // Longer numbers than anybody uses.
            out.extend_from_slice(b".?");
            return;
        }
        value = value << 7 | u128::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        let wrote = if first {
            let root = (value / 40).min(2);
            write!(out, "{root}.{}", value - root * 40)
        } else {
            write!(out, ".{value}")
        };
        debug_assert!(wrote.is_ok(), "a Vec takes everything");
        first = false;
        value = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_one_after_the_other() {
        let bytes = [0x30, 0x05, 0x02, 0x01, 0x07, 0x05, 0x00, 0x04, 0x81, 0x01, 0xaa];
        let mut reader = Reader::new(&bytes);
        let mut inner = reader.sequence().unwrap();
        assert_eq!(inner.small_integer(), Ok(7));
        assert_eq!(inner.expect(0x05).unwrap().content, b"");
        assert!(inner.is_empty());
        assert_eq!(reader.optional(tag::INTEGER), Ok(None));
        assert_eq!(reader.expect(tag::OCTET_STRING).unwrap().content, [0xaa]);
        assert_eq!(reader.any(), Err(BadDer));
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        for bytes in
            [&[0x30, 0x01][..], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x1f, 0x01, 0x00]]
        {
            assert_eq!(Reader::new(bytes).any(), Err(BadDer), "{bytes:x?}");
        }
    }

    #[test]
    fn object_identifiers_read_as_numbers() {
        let mut out = Vec::new();
        append_oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d], &mut out);
        assert_eq!(out, b"1.2.840.113549.1.5.13");
    }
}
