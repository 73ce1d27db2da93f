//! A picture of how well the models of a job's rounds did.
//!
//! Owns the drawing: SVG with shapes and text alone, in greys and colours that are read on light
//! and on dark ground, so that it needs no style of the page around it. Measures nothing.

use std::fmt::Write as _;

/// The picture, in pixels.
const WIDTH: f64 = 720.0;
/// See [`WIDTH`].
const HEIGHT: f64 = 400.0;
/// Room for the title above, the numbers at the left, the rounds below, and the last number.
const TOP: f64 = 48.0;
/// See [`TOP`].
const LEFT: f64 = 64.0;
/// See [`TOP`].
const BOTTOM: f64 = 56.0;
/// See [`TOP`].
const RIGHT: f64 = 56.0;
/// Points and marks that are drawn: what a job has rounds at most; the picture has fewer pixels.
const MAX_POINTS: usize = 10_000;
/// Marks that can still be told apart.
const MAX_MARKS: usize = 32;
/// Thin lines that can still be told apart, or seen as a crowd.
const MAX_BESIDE: usize = 64;
/// Letters of a text that fit.
const MAX_TEXT: usize = 72;
/// Numbers along the rounds.
const TICKS: u64 = 8;
/// Nats that a picture of losses spans at least, a tenth more at either side.
const LEAST_RISE: f64 = 0.01;
/// What text and lines are drawn in: of equal contrast to white and to black.
const INK: &str = "#767676";
/// The line of the accuracy.
const LINE: &str = "#2f81f7";
/// Where something happened.
const MARK: &str = "#d1571f";

/// An SVG picture of accuracy (0 to 1) by round, in order of rounds. `beside` are thin lines of
/// what the one of `points` is of, as the nodes of a mesh; `marks` are what happened before a
/// round's end, as a node that died. What is no number is left out, and what is beyond 0 or 1 is
/// drawn at the edge.
pub fn svg(
    title: &str,
    points: &[(u64, f64)],
    beside: &[Vec<(u64, f64)>],
    marks: &[(u64, String)],
) -> String {
    let points = within(points);
    let beside: Vec<Vec<(u64, f64)>> =
        beside.iter().take(MAX_BESIDE).map(|points| within(points)).collect();
    let marks = &marks[..marks.len().min(MAX_MARKS)];
    let all: Vec<(u64, f64)> = beside.iter().flatten().chain(&points).copied().collect();
    let rounds = all.iter().map(|point| point.0).chain(marks.iter().map(|mark| mark.0));
    let span = Span::of(rounds, &all);
    picture(title, &span, (&points, &beside), marks)
}

/// A round, and the value after it.
type Point = (u64, f64);

/// The points that are drawn, within the axes.
fn within(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let finite = points.iter().filter(|(_, value)| value.is_finite()).take(MAX_POINTS);
    finite.map(|(round, value)| (*round, value.clamp(0.0, 1.0))).collect()
}

fn picture(
    title: &str,
    span: &Span,
    (points, beside): (&[Point], &[Vec<Point>]),
    marks: &[(u64, String)],
) -> String {
    let mut out = String::new();
    let (middle, title) = (WIDTH / 2.0, text(title));
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"{INK}\">\n<title>{title}</title>\n\
         <text x=\"{middle}\" y=\"26\" text-anchor=\"middle\" font-size=\"16\">{title}</text>\n"
    );
    axes(&mut out, span);
    for (at, (round, what)) in marks.iter().enumerate() {
        mark(&mut out, span, at, *round, what);
    }
    for points in beside {
        let places = places(span, points);
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{LINE}\" stroke-width=\"1\" \
             stroke-opacity=\"0.45\" stroke-linejoin=\"round\" points=\"{places}\"/>"
        );
    }
    line(&mut out, span, points);
    out.push_str("</svg>\n");
    out
}

/// An SVG picture of a language model's loss by round, in nats; what is no number is left out.
pub fn svg_of_losses(title: &str, points: &[(u64, f64)]) -> String {
    let finite = points.iter().copied().filter(|(_, value)| value.is_finite());
    let points: Vec<(u64, f64)> = finite.take(MAX_POINTS).collect();
    let most = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let least = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    // A flat line is in the middle and seen to be flat.
    let (middle, rise) = (f64::midpoint(most, least), LEAST_RISE.max(most - least));
    let (low, high) = match points.is_empty() {
        true => (0.0, 1.0),
        false => (middle - 0.6 * rise, middle + 0.6 * rise),
    };
    // Drawn as shares of the height, which is all that the drawing below knows.
    let shares: Vec<(u64, f64)> =
        points.iter().map(|(round, value)| (*round, (value - low) / (high - low))).collect();
    let rounds = points.iter().map(|point| point.0);
    let mut span = Span::of(rounds, &[]);
    span.nats = Some((low, high));
    picture(title, &span, (&shares, &[]), &[])
}

/// What of rounds and accuracy is in the picture.
struct Span {
    first: u64,
    last: u64,
    /// The accuracy at the bottom, in tenths; the top is 1.
    floor: u8,
    /// What bottom and top stand for where it is a loss that is drawn.
    nats: Option<(f64, f64)>,
}

impl Span {
    fn of(rounds: impl Iterator<Item = u64> + Clone, points: &[(u64, f64)]) -> Self {
        let first = rounds.clone().min().unwrap_or(0);
        let last = rounds.max().unwrap_or(0).max(first.saturating_add(1));
        let least = points.iter().map(|point| point.1).fold(1.0, f64::min);
        // At least the upper half, so that a flat line is seen to be flat.
        let floor = if points.is_empty() { 0 } else { ((least * 10.0).floor() as u8).min(5) };
        Self { first, last, floor, nats: None }
    }

    /// What a height stands for.
    fn said(&self, share: f64, decimals: usize) -> String {
        match self.nats {
            None => format!("{:.decimals$} %", share * 100.0),
            Some((low, high)) => format!("{:.3}", low + share * (high - low)),
        }
    }

    fn x(&self, round: u64) -> f64 {
        let part = (round - self.first) as f64 / (self.last - self.first) as f64;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, accuracy: f64) -> f64 {
        let floor = f64::from(self.floor) / 10.0;
        let part = ((accuracy - floor) / (1.0 - floor)).max(0.0);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

fn axes(out: &mut String, span: &Span) {
    let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tenths in span.floor..=10 {
        let y = span.y(f64::from(tenths) / 10.0);
        let strong = if tenths == span.floor { "1" } else { "0.25" };
        let said = span.said(f64::from(tenths) / 10.0, 0);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{INK}\" \
             stroke-opacity=\"{strong}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{said}</text>",
            left - 8.0,
            y + 4.5
        );
    }
    let step = (span.last - span.first).div_ceil(TICKS).max(1);
    for round in (0..=TICKS).map(|at| span.first.saturating_add(at.saturating_mul(step))) {
        if round > span.last {
            break;
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{round}</text>",
            span.x(round),
            bottom + 20.0
        );
    }
    let (middle, below) = (f64::midpoint(left, right), HEIGHT - 14.0);
    let what = if span.nats.is_some() { "loss" } else { "right" };
    let _ = writeln!(
        out,
        "<line x1=\"{left}\" x2=\"{left}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{INK}\"/>\n\
         <text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">rounds</text>\n\
         <text x=\"{left}\" y=\"{:.1}\" text-anchor=\"middle\">{what}</text>",
        TOP - 14.0
    );
}

fn mark(out: &mut String, span: &Span, at: usize, round: u64, what: &str) {
    let (x, bottom) = (span.x(round), HEIGHT - BOTTOM);
    // One below the other, away from the line, and on the side that has room.
    let y = bottom - 10.0 - 16.0 * (at % 6) as f64;
    let (anchor, beside) = if x > WIDTH / 2.0 { ("end", -6.0) } else { ("start", 6.0) };
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{MARK}\" \
         stroke-dasharray=\"4 4\"/>\
         <text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{MARK}\">{}</text>",
        x + beside,
        text(what)
    );
}

fn line(out: &mut String, span: &Span, points: &[(u64, f64)]) {
    let Some(last) = points.last() else {
        let (x, y) = (WIDTH / 2.0, HEIGHT / 2.0);
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">nothing is measured yet</text>"
        );
        return;
    };
    let places = places(span, points);
    let (x, y) = (span.x(last.0), span.y(last.1));
    let _ = writeln!(
        out,
        "<polyline fill=\"none\" stroke=\"{LINE}\" stroke-width=\"2.5\" stroke-linejoin=\"round\" \
         points=\"{places}\"/>\n<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{LINE}\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{LINE}\">{}</text>",
        x + 8.0,
        y + 4.5,
        span.said(last.1, 1)
    );
}

/// Where points are in the picture, as a line of SVG has them.
fn places(span: &Span, points: &[(u64, f64)]) -> String {
    let place =
        |(round, value): &(u64, f64)| format!("{:.1},{:.1}", span.x(*round), span.y(*value));
    points.iter().map(place).collect::<Vec<_>>().join(" ")
}

/// A text of a picture: what XML takes for its own is written as its names, what it has no place
/// for is left out, and what does not fit is cut.
fn text(raw: &str) -> String {
    let mut out = String::new();
    for letter in raw.chars().filter(|c| !c.is_control() && !is_noncharacter(*c)).take(MAX_TEXT) {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            other => out.push(other),
        }
    }
    out
}

/// What XML 1.0 excludes beside control characters (section 2.2).
const fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of one line.
    fn svg(title: &str, points: &[(u64, f64)], marks: &[(u64, String)]) -> String {
        super::svg(title, points, &[], marks)
    }

    /// Whether the tags of a picture fit into each other and no number is none.
    fn check(picture: &str) {
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        let mut open = Vec::new();
        for part in picture.split('<').skip(1) {
            let (tag, _) = part.split_once('>').expect("a tag ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{picture}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().expect("a name"));
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    fn places(picture: &str) -> Vec<(f64, f64)> {
        let line = picture.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
        let pair = |place: &str| {
            let (x, y) = place.split_once(',').expect("a pair");
            (x.parse().expect("a number"), y.parse().expect("a number"))
        };
        line.expect("a line").split(' ').map(pair).collect()
    }

    #[test]
    fn a_line_rises_from_left_to_right_within_the_axes() {
        let points: Vec<(u64, f64)> = (0..=30).map(|round| (round, round as f64 / 30.0)).collect();
        let picture = svg("digits", &points, &[]);
        check(&picture);
        let places = places(&picture);
        assert_eq!(places.len(), 31);
        assert!(places.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1), "{places:?}");
        assert_eq!((places[0], places[30]), ((LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)));
        for said in [">digits<", ">0 %<", ">100 %<", ">0<", ">28<", ">rounds<", ">100.0 %<"] {
            assert!(picture.contains(said), "{said} in {picture}");
        }
    }

    #[test]
    fn no_point_and_one_point_are_pictures() {
        let none = svg("digits", &[], &[]);
        check(&none);
        assert!(none.contains("nothing is measured yet") && none.contains(">0 %<"));
        let one = svg("digits", &[(7, 0.925)], &[]);
        check(&one);
        assert_eq!(places(&one).len(), 1);
        assert!(one.contains(">92.5 %<") && one.contains(">7<") && one.contains("<circle"));
        let late = svg("", &[(u64::MAX, 0.5)], &[(0, "a".to_owned())]);
        check(&late);
    }

    #[test]
    fn what_is_no_number_is_left_out_and_what_is_beyond_is_at_the_edge() {
        let points = [(0, f64::NAN), (1, 0.5), (2, f64::INFINITY), (3, 1.5), (4, -2.0)];
        let picture = svg("a", &points, &[]);
        check(&picture);
        let places = places(&picture);
        assert_eq!(places.len(), 3);
        assert_eq!((places[1].1, places[2].1), (TOP, HEIGHT - BOTTOM));
    }

    #[test]
    fn a_line_that_stays_high_has_the_upper_half_for_itself() {
        let picture = svg("a", &[(1, 0.91), (2, 0.93)], &[]);
        assert!(picture.contains(">50 %<") && !picture.contains(">40 %<"), "{picture}");
    }

    #[test]
    fn marks_stand_at_their_round_and_beyond_the_points() {
        let marks = [(1, "anchor 2 died".to_owned()), (9, "b".to_owned())];
        let picture = svg("a", &[(0, 0.1), (4, 0.2)], &marks);
        check(&picture);
        assert!(picture.contains(">anchor 2 died<") && picture.contains("stroke-dasharray"));
        assert!(picture.contains(&format!("x1=\"{:.1}\"", WIDTH - RIGHT)), "{picture}");
        let many: Vec<(u64, String)> = (0..100).map(|round| (round, "x".to_owned())).collect();
        assert_eq!(svg("a", &[], &many).matches("stroke-dasharray").count(), MAX_MARKS);
    }

    #[test]
    fn thin_lines_are_beside_the_one_and_within_the_same_axes() {
        let (points, low) = ([(0, 0.8), (4, 0.9)], vec![(0, 0.1), (4, f64::NAN), (6, 0.7)]);
        let picture = super::svg("a", &points, &[low, vec![]], &[]);
        check(&picture);
        assert_eq!(picture.matches("stroke-width=\"1\"").count(), 2);
        assert!(picture.contains(">10 %<") && !picture.contains(">0 %<"), "{picture}");
        let thin = places(&picture);
        assert_eq!((thin.len(), thin[0], thin[1].0), (2, (LEFT, HEIGHT - BOTTOM), WIDTH - RIGHT));
        let many = vec![vec![(0, 0.5)]; MAX_BESIDE + 9];
        let crowd = super::svg("a", &points, &many, &[]);
        assert_eq!(crowd.matches("<polyline").count(), MAX_BESIDE + 1);
    }

    #[test]
    fn losses_have_an_axis_of_nats() {
        let points = [(0, 3.5), (1, f64::NAN), (2, 3.25), (3, 3.0)];
        let picture = svg_of_losses("letters", &points);
        check(&picture);
        let places = places(&picture);
        assert!(places.len() == 3 && places.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
        for said in [">loss<", ">3.000<", ">3.550<", ">2.950<"] {
            assert!(picture.contains(said), "{said} in {picture}");
        }
        check(&svg_of_losses("", &[]));
        check(&svg_of_losses("", &[(0, 2.0), (1, 2.0)]));
    }

    #[test]
    fn texts_are_texts() {
        let title = "</title><script>alert('1' & \"2\")</script>\u{1b}\u{ffff}";
        let picture = svg(title, &[(0, 0.5)], &[(0, "<b>".to_owned())]);
        check(&picture);
        assert!(!picture.contains("<script") && !picture.contains("<b>"));
        assert!(picture.contains("&lt;script&gt;alert(&apos;1&apos; &amp; &quot;2&quot;)"));
        assert!(!picture.contains('\u{1b}') && !picture.contains('\u{ffff}'));
        check(&svg(&"&".repeat(500), &[], &[]));
    }
}
