use super::*;

/// A picture by its numbers; those of the tables below were made by the same rule.
fn points((width, height): (usize, usize)) -> Vec<Vec<u8>> {
    let number =
        |x: usize, y: usize, channel: usize| x * x * 37 + y * 91 + channel * 50 + x * y * 13;
    let row = |y: usize| {
        let row = (0..width).flat_map(|x| (0..CHANNELS).map(move |at| number(x, y, at) as u8));
        row.collect()
    };
    (0..height).map(row).collect()
}

fn part(
    filter: Filter,
    from: (usize, usize),
    to: (usize, usize),
    part: (Range<usize>, Range<usize>),
) -> Vec<u8> {
    let rows = points(from);
    let given = |at: usize, into: &mut Vec<u8>| into.extend_from_slice(&rows[at]);
    let made = resampled(filter, from, to, part, given);
    assert_eq!(made.bytes.len(), made.width * made.height * CHANNELS);
    made.bytes
}

fn whole(filter: Filter, from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    part(filter, from, to, (0..to.0, 0..to.1))
}

#[test]
fn sizes_are_brought_as_pillow_brings_them() {
    // Pillow 12.0, `Image.fromarray(points).resize(to, filter)`.
    for (filter, from, to, wanted) in [
        (
            Filter::Lanczos,
            (7, 3),
            (3, 2),
            &[51, 114, 174, 123, 106, 145, 121, 111, 87, 164, 149, 133, 126, 87, 148, 168, 79, 135]
                [..],
        ),
        (
            Filter::Bilinear,
            (7, 3),
            (3, 2),
            &[66, 116, 166, 117, 105, 146, 121, 116, 98, 159, 140, 133, 129, 99, 149, 159, 85, 135],
        ),
        (
            Filter::Bicubic,
            (7, 3),
            (3, 2),
            &[57, 115, 169, 120, 105, 148, 120, 115, 92, 164, 144, 131, 126, 95, 150, 163, 81, 136],
        ),
        (
            Filter::Bicubic,
            (11, 2),
            (4, 2),
            &[
                55, 105, 161, 108, 158, 156, 63, 113, 109, 120, 170, 127, 95, 131, 181, 158, 29,
                85, 155, 114, 82, 87, 143, 173,
            ],
        ),
        (
            Filter::Bilinear,
            (2, 9),
            (2, 3),
            &[
                82, 132, 118, 135, 121, 171, 108, 158, 123, 140, 162, 126, 134, 120, 138, 163, 117,
                167,
            ],
        ),
    ] {
        assert_eq!(whole(filter, from, to), wanted, "{filter:?} {from:?} {to:?}");
    }
    // Larger, where weights below none make bytes above the greatest.
    let larger = whole(Filter::Bicubic, (4, 4), (7, 5));
    assert_eq!(larger[..12], [0, 43, 93, 3, 53, 103, 27, 77, 127, 100, 150, 200]);
    assert_eq!(larger[97..], [26, 76, 232, 5, 55, 214, 0, 47]);
}

#[test]
fn a_part_is_that_of_the_whole() {
    for filter in [Filter::Lanczos, Filter::Bilinear, Filter::Bicubic] {
        for (from, to) in
            [((13, 9), (7, 5)), ((5, 6), (12, 11)), ((9, 9), (9, 4)), ((6, 8), (3, 8))]
        {
            let all = whole(filter, from, to);
            let (across, down) = (1..to.0 - 1, 2..to.1);
            let row = |at: usize| {
                let begin = (at * to.0 + across.start) * CHANNELS;
                all[begin..begin + across.len() * CHANNELS].to_vec()
            };
            let wanted: Vec<u8> = down.clone().flat_map(row).collect();
            let got = part(filter, from, to, (across.clone(), down.clone()));
            assert_eq!(got, wanted, "{filter:?} {from:?} {to:?}");
        }
    }
}

#[test]
fn an_even_picture_stays_even_and_the_same_size_the_same() {
    let even = |_: usize, into: &mut Vec<u8>| into.extend([7, 130, 255].repeat(100));
    for filter in [Filter::Lanczos, Filter::Bilinear, Filter::Bicubic] {
        for to in [(3, 3), (100, 40), (170, 1)] {
            let made = resampled(filter, (100, 60), to, (0..to.0, 0..to.1), even);
            let all_same =
                made.bytes.as_chunks::<3>().0.iter().all(|point| *point == [7, 130, 255]);
            assert!(all_same && (made.width, made.height) == to, "{filter:?} {to:?}");
        }
        assert_eq!(whole(filter, (7, 5), (7, 5)), points((7, 5)).concat());
    }
}
