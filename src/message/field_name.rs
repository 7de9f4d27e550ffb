//! Names of fields that the server itself looks at.

macro_rules! field_names {
    ($($variant:ident $text:literal),+ $(,)?) => {
        /// A field name that some part of the server looks at; every other name is `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FieldName {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
            /// Any name not listed above.
            Other,
        }

        impl FieldName {
            /// How many names are known; `Other` is not counted.
            pub const COUNT: usize = FieldName::Other as usize;

            const TEXTS: [&'static str; FieldName::COUNT] = [$($text),+];
            const ALL: [FieldName; FieldName::COUNT] = [$(FieldName::$variant),+];
        }
    };
}

field_names! {
    Accept "Accept",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AcceptRanges "Accept-Ranges",
    Authorization "Authorization",
    CacheControl "Cache-Control",
    Connection "Connection",
    ContentEncoding "Content-Encoding",
    ContentLength "Content-Length",
    ContentRange "Content-Range",
    ContentType "Content-Type",
    Cookie "Cookie",
    Date "Date",
    Depth "Depth",
    Destination "Destination",
    Etag "ETag",
    Expect "Expect",
    Expires "Expires",
    Forwarded "Forwarded",
    Host "Host",
    IfMatch "If-Match",
    IfModifiedSince "If-Modified-Since",
    IfNoneMatch "If-None-Match",
    IfRange "If-Range",
    IfUnmodifiedSince "If-Unmodified-Since",
    KeepAlive "Keep-Alive",
    LastModified "Last-Modified",
    Link "Link",
    Location "Location",
    Origin "Origin",
    Overwrite "Overwrite",
    Priority "Priority",
    ProxyAuthorization "Proxy-Authorization",
    ProxyConnection "Proxy-Connection",
    Range "Range",
    Referer "Referer",
    Refresh "Refresh",
    RetryAfter "Retry-After",
    SecFetchDest "Sec-Fetch-Dest",
    Server "Server",
    SetCookie "Set-Cookie",
    Te "TE",
    Trailer "Trailer",
    TransferEncoding "Transfer-Encoding",
    Upgrade "Upgrade",
    UserAgent "User-Agent",
    Vary "Vary",
    Via "Via",
    WwwAuthenticate "WWW-Authenticate",
    XAccelBuffering "X-Accel-Buffering",
    XAccelCharset "X-Accel-Charset",
    XAccelExpires "X-Accel-Expires",
    XAccelLimitRate "X-Accel-Limit-Rate",
    XAccelRedirect "X-Accel-Redirect",
    XForwardedFor "X-Forwarded-For",
    XRealIp "X-Real-IP",
}

/// Longest known name, in bytes.
const LONGEST: usize = 19;

/// For every length, where the names of that length begin in `BY_LENGTH` (a counting sort made at compile time), so
/// that a look-up compares with the two or three names of its own length only.
const STARTS: [u8; LONGEST + 2] = {
    let mut starts = [0u8; LONGEST + 2];
    let mut i = 0;
    while i < FieldName::COUNT {
        starts[FieldName::TEXTS[i].len() + 1] += 1;
        i += 1;
    }
    let mut length = 1;
    while length < LONGEST + 2 {
        starts[length] += starts[length - 1];
        length += 1;
    }
    starts
};

const BY_LENGTH: [FieldName; FieldName::COUNT] = {
    let mut next = STARTS;
    let mut sorted = [FieldName::Other; FieldName::COUNT];
    let mut i = 0;
    while i < FieldName::COUNT {
        let length = FieldName::TEXTS[i].len();
        sorted[next[length] as usize] = FieldName::ALL[i];
        next[length] += 1;
        i += 1;
    }
    sorted
};

const LOWER_CASE: [[u8; LONGEST]; FieldName::COUNT] = {
    let mut texts = [[0; LONGEST]; FieldName::COUNT];
    let mut i = 0;
    while i < FieldName::COUNT {
        let name = FieldName::TEXTS[i].as_bytes();
        let mut at = 0;
        while at < name.len() {
            texts[i][at] = name[at].to_ascii_lowercase();
            at += 1;
        }
        i += 1;
    }
    texts
};

/// The names as `lower_case_words` gives them: every line of every head is compared with two or three of them.
const WORDS: [[u64; 3]; FieldName::COUNT] = {
    let mut words = [[0; 3]; FieldName::COUNT];
    let mut i = 0;
    while i < FieldName::COUNT {
        words[i] = lower_case_words(FieldName::TEXTS[i].as_bytes());
        i += 1;
    }
    words
};

/// A name of at most 24 bytes in lower case, as three words with zeros behind it. Names of the same length are the same,
/// but for case, where these are.
const fn lower_case_words(name: &[u8]) -> [u64; 3] {
    let mut words = [0; 3];
    let mut rest = name;
    let mut at = 0;
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        words[at] = lower_case_word(u64::from_le_bytes(*chunk));
        rest = behind;
        at += 1;
    }
    let mut last = 0;
    while let Some((byte, before)) = rest.split_last() {
        last = last << 8 | *byte as u64;
        rest = before;
    }
    if at < words.len() {
        words[at] = lower_case_word(last);
    }
    words
}

/// Eight bytes at once: the high bit of a byte is free for its own carry, as letters have none.
const fn lower_case_word(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (0x7f * ONES);
    let from_a = low_bits + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low_bits + (0x7f - b'Z' as u64) * ONES;
    let is_upper = (from_a ^ beyond_z) & !word & (0x80 * ONES);
    word | is_upper >> 2
}

impl FieldName {
    /// The known name that `name` is (ASCII case ignored), or `Other`.
    pub fn of(name: &[u8]) -> FieldName {
        if name.len() > LONGEST {
            return FieldName::Other;
        }
        let candidates = &BY_LENGTH[STARTS[name.len()] as usize..STARTS[name.len() + 1] as usize];
        let words = lower_case_words(name);
        candidates.iter().copied().find(|id| WORDS[*id as usize] == words).unwrap_or(FieldName::Other)
    }

    /// The name in lower case, as HTTP/2 writes it; empty for `Other`.
    pub fn lower_case(self) -> &'static [u8] {
        match LOWER_CASE.get(self as usize) {
            Some(text) => &text[..self.as_str().len()],
            None => b"",
        }
    }

    /// The name in its usual case; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        FieldName::TEXTS.get(self as usize).copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for id in FieldName::ALL {
            assert_eq!(FieldName::of(id.as_str().as_bytes()), id);
            assert_eq!(FieldName::of(id.as_str().to_ascii_lowercase().as_bytes()), id);
            assert_eq!(id.lower_case(), id.as_str().to_ascii_lowercase().as_bytes());
        }
        assert_eq!(FieldName::of(b""), FieldName::Other);
        assert_eq!(FieldName::of(b"X-Forwarded-Foo"), FieldName::Other);
        assert_eq!(FieldName::of(&[b'a'; 300]), FieldName::Other);
        assert_eq!(FieldName::of(b"\xc8ost"), FieldName::Other, "no letter");
        assert_eq!(FieldName::of(b"dat\0"), FieldName::Other);
        assert_eq!(FieldName::of(b"content\rtype"), FieldName::Other);
    }

    #[test]
    fn words_differ_where_lower_case_differs() {
        for byte in 0..=255 {
            for at in 0..9 {
                let mut name = *b"xxxxxxxxx";
                name[at] = byte;
                let lower = lower_case_words(&name.to_ascii_lowercase());
                assert_eq!(lower_case_words(&name), lower);
                let text: Vec<u8> = lower.iter().flat_map(|word| word.to_le_bytes()).take(9).collect();
                assert_eq!(text, name.to_ascii_lowercase());
            }
        }
    }
}
