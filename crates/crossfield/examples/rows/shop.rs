//! Rows with histories.

use std::fmt::Write;
use std::path::Path;

use crossfield::core::metrics::sigmoid;
use crossfield::core::rng::{Purpose, rng};
use crossfield::train::Training;
use rand::{Rng, RngExt};

/// Kinds of things in the shop, of two of which a person mostly buys.
pub(crate) const KINDS: [&str; 10] = [
    "shoes", "novel", "camera", "tea", "plant", "rug", "game", "lamp", "knife", "bike",
];
/// Things of each kind.
pub(crate) const THINGS: usize = 6;
const SEASONS: [&str; 4] = ["spring", "summer", "autumn", "winter"];

/// Offers of a shop: a thing, its kind, the season, what the person bought before, the oldest first,
/// and whether they clicked. They do if it is of a kind that they buy, and in the season of that kind.
pub(crate) fn shop(rows: usize, folder: &Path) -> Result<Training, Box<dyn std::error::Error>> {
    let mut stream = rng(1, Purpose::Synth, 0, 0);
    let mut text = "click,item,kind,season,history\n".to_owned();
    for _ in 0..rows {
        let offer = offer(&mut stream);
        let bought: Vec<String> = offer.bought.into_iter().map(thing).collect();
        writeln!(
            text,
            "{},{},{},{},{}",
            u8::from(offer.click),
            thing(offer.item),
            KINDS[offer.item.0],
            SEASONS[offer.season],
            bought.join("|")
        )?;
    }
    let file = folder.join("shop.csv");
    std::fs::write(&file, text)?;
    let text = "
        field = [
            { name = 'item' },
            { name = 'kind' },
            { name = 'season' },
            { name = 'history', kind = 'sequence', vocabulary = 'item', repeats = true },
        ]
        cross = [{ fields = ['kind', 'season'] }]
        data = { split = { kind = 'random', valid = 0.1, test = 0.2 } }
        label = { column = 'click' }
        optimizer = { rows = { kind = 'adam', lr = 0.02 }, dense = { lr = 0.02 } }
        train = { batch_size = 256, epochs = 10, early_stop = { patience = 1 } }";
    let mut training = Training::parse(text, folder)?;
    training.data.data.train = vec![file.display().to_string()];
    Ok(training)
}

/// A thing: its kind, and its number among those.
pub(crate) type Thing = (usize, usize);

/// Its name.
pub(crate) fn thing((kind, number): Thing) -> String {
    format!("{}-{number}", KINDS[kind])
}

struct Offer {
    bought: Vec<Thing>,
    item: Thing,
    season: usize,
    click: bool,
}

fn offer(stream: &mut impl Rng) -> Offer {
    let liked = rand::seq::index::sample(stream, KINDS.len(), 2).into_vec();
    let bought = (0..stream.random_range(3..10)).map(|_| {
        let kind = match stream.random_bool(0.85) {
            true => liked[stream.random_range(0..2)],
            false => stream.random_range(0..KINDS.len()),
        };
        (kind, stream.random_range(0..THINGS))
    });
    let bought: Vec<Thing> = bought.collect();
    let kind = match stream.random_bool(0.4) {
        true => liked[stream.random_range(0..2)],
        false => stream.random_range(0..KINDS.len()),
    };
    let season = stream.random_range(0..SEASONS.len());
    let is_liked = if liked.contains(&kind) { 3.5 } else { 0.0 };
    let is_season = if kind % 4 == season { 1.5 } else { 0.0 };
    Offer {
        bought,
        item: (kind, stream.random_range(0..THINGS)),
        season,
        click: stream.random_bool(sigmoid(-2.5 + is_liked + is_season)),
    }
}
