//! `modern_browser` and `ancient_browser`.

use crate::util::Cases;

#[test]
fn versions_are_told_as_nginx_tells_them() {
    Cases::new(
        "server { listen {port};
          modern_browser msie 5.5; modern_browser gecko 1.7; modern_browser opera 9.50;
          modern_browser safari 413; modern_browser konqueror 3.0;
          modern_browser_value m; ancient_browser_value a;
          return 200 $modern_browser|$ancient_browser|$msie; }",
    )
    .get("/", "200 |a|")
    .get_with("/", "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", "200 m||1")
    .get_with("/", "User-Agent: Mozilla/4.0 (compatible; MSIE 5.01; Windows 98)", "200 |a|1")
    .get_with("/", "User-Agent: Mozilla/4.0 (compatible; MSIE 5.50; Windows 98)", "200 m||1")
    .get_with("/", "User-Agent: Mozilla/5.0 (X11; U; Linux; rv:1.6) Gecko/20041107 Firefox/1.0", "200 |a|")
    .get_with("/", "User-Agent: Mozilla/5.0 (X11; U; Linux; rv:1.7) Gecko/20041110 Firefox/1.0", "200 m||")
    .get_with(
        "/",
        "User-Agent: Mozilla/5.0 (Macintosh; U) AppleWebKit/418.9 (KHTML, like Gecko) Safari/419.3",
        "200 m||",
    )
    .get_with(
        "/",
        "User-Agent: Mozilla/5.0 (Macintosh; U) AppleWebKit/500.9 (KHTML, like Gecko) Safari/412.3",
        "200 |a|",
    )
    .get_with("/", "User-Agent: Opera/9.64 (X11; Linux)", "200 m||")
    .get_with("/", "User-Agent: Opera/9.20 (X11; Linux)", "200 |a|")
    .get_with("/", "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows) Opera 9.60", "200 m||")
    .get_with("/", "User-Agent: Mozilla/5.0 (compatible; Konqueror/3.5; Linux) KHTML", "200 m||")
    .get_with("/", "User-Agent: Mozilla/5.0 (compatible; Konqueror/2.2; Linux)", "200 |a|")
    .get_with("/", "User-Agent: MSIE 9", "200 |a|")
    .get_with("/", "User-Agent: curl/8.0", "200 |a|")
    .check();
}

#[test]
fn ancient_browsers_and_unlisted_ones() {
    Cases::new(
        "server { listen {port}; modern_browser unlisted; ancient_browser Links Lynx netscape4;
          return 200 $modern_browser|$ancient_browser; }",
    )
    .get("/", "200 1|")
    .get_with("/", "User-Agent: Lynx/2.8.9", "200 |1")
    .get_with("/", "User-Agent: Mozilla/4.79 [en] (X11)", "200 |1")
    .get_with("/", "User-Agent: Mozilla/5.0 (X11; Linux)", "200 1|")
    .get_with("/", "User-Agent: Mozilla/4.0", "200 1|")
    .check();
}
