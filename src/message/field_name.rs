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

impl FieldName {
    /// The known name that `name` is (ASCII case ignored), or `Other`.
    pub fn of(name: &[u8]) -> FieldName {
        if name.len() > LONGEST {
            return FieldName::Other;
        }
        let candidates = &BY_LENGTH[STARTS[name.len()] as usize..STARTS[name.len() + 1] as usize];
        candidates
            .iter()
            .copied()
            .find(|id| id.as_str().as_bytes().eq_ignore_ascii_case(name))
            .unwrap_or(FieldName::Other)
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
        }
        assert_eq!(FieldName::of(b""), FieldName::Other);
        assert_eq!(FieldName::of(b"X-Forwarded-Foo"), FieldName::Other);
        assert_eq!(FieldName::of(&[b'a'; 300]), FieldName::Other);
    }
}
