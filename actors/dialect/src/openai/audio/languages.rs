//! The languages that such models know, by their codes and as OpenAI's answers call them.

/// By code. Where ISO 639-1 has none, the models' own.
#[rustfmt::skip]
static LANGUAGES: [(&str, &str); 100] = [
    ("af", "afrikaans"), ("am", "amharic"), ("ar", "arabic"), ("as", "assamese"),
    ("az", "azerbaijani"), ("ba", "bashkir"), ("be", "belarusian"), ("bg", "bulgarian"),
    ("bn", "bengali"), ("bo", "tibetan"), ("br", "breton"), ("bs", "bosnian"), ("ca", "catalan"),
    ("cs", "czech"), ("cy", "welsh"), ("da", "danish"), ("de", "german"), ("el", "greek"),
    ("en", "english"), ("es", "spanish"), ("et", "estonian"), ("eu", "basque"), ("fa", "persian"),
    ("fi", "finnish"), ("fo", "faroese"), ("fr", "french"), ("gl", "galician"), ("gu", "gujarati"),
    ("ha", "hausa"), ("haw", "hawaiian"), ("he", "hebrew"), ("hi", "hindi"), ("hr", "croatian"),
    ("ht", "haitian creole"), ("hu", "hungarian"), ("hy", "armenian"), ("id", "indonesian"),
    ("is", "icelandic"), ("it", "italian"), ("ja", "japanese"), ("jw", "javanese"),
    ("ka", "georgian"), ("kk", "kazakh"), ("km", "khmer"), ("kn", "kannada"), ("ko", "korean"),
    ("la", "latin"), ("lb", "luxembourgish"), ("ln", "lingala"), ("lo", "lao"),
    ("lt", "lithuanian"), ("lv", "latvian"), ("mg", "malagasy"), ("mi", "maori"),
    ("mk", "macedonian"), ("ml", "malayalam"), ("mn", "mongolian"), ("mr", "marathi"),
    ("ms", "malay"), ("mt", "maltese"), ("my", "myanmar"), ("ne", "nepali"), ("nl", "dutch"),
    ("nn", "nynorsk"), ("no", "norwegian"), ("oc", "occitan"), ("pa", "punjabi"), ("pl", "polish"),
    ("ps", "pashto"), ("pt", "portuguese"), ("ro", "romanian"), ("ru", "russian"),
    ("sa", "sanskrit"), ("sd", "sindhi"), ("si", "sinhala"), ("sk", "slovak"), ("sl", "slovenian"),
    ("sn", "shona"), ("so", "somali"), ("sq", "albanian"), ("sr", "serbian"), ("su", "sundanese"),
    ("sv", "swedish"), ("sw", "swahili"), ("ta", "tamil"), ("te", "telugu"), ("tg", "tajik"),
    ("th", "thai"), ("tk", "turkmen"), ("tl", "tagalog"), ("tr", "turkish"), ("tt", "tatar"),
    ("uk", "ukrainian"), ("ur", "urdu"), ("uz", "uzbek"), ("vi", "vietnamese"), ("yi", "yiddish"),
    ("yo", "yoruba"), ("yue", "cantonese"), ("zh", "chinese"),
];

/// What a language is called; one that nobody knows by its code.
pub(super) fn name_of(code: &str) -> &str {
    LANGUAGES.iter().find(|(known, _)| *known == code).map_or(code, |(_, name)| name)
}

/// The code of a language that is called by its name.
pub(super) fn code_of(name: &str) -> Option<&'static str> {
    LANGUAGES.iter().find(|(_, known)| *known == name).map(|(code, _)| *code)
}
