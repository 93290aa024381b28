//! What the terminal is shown: an image, what the network makes of it, and who is taken for whom.

use crate::data::SIDE;

/// An image as text, two characters to a pixel so that it comes out square.
pub fn image(pixels: &[f32]) -> String {
    const SHADES: [char; 6] = [' ', '.', ':', 'o', '#', '@'];
    let mut out = String::new();
    for row in pixels.chunks(SIDE) {
        out.push_str("    |");
        for &pixel in row {
            let shade = (pixel * (SHADES.len() - 1) as f32).round() as usize;
            let shade = SHADES[shade.min(SHADES.len() - 1)];
            out.extend([shade, shade]);
        }
        out.push_str("|\n");
    }
    out
}

/// Digits and their probabilities, the likeliest first.
pub fn ranking(logits: &[f32]) -> percycle::Result<Vec<(usize, f32)>> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Relative to the highest, so that no exponential overflows.
    let mut shares: Vec<f32> = logits.iter().map(|logit| logit - highest).collect();
    percycle::math::exp(&mut shares)?;
    let sum: f32 = shares.iter().sum();
    let mut ranking: Vec<(usize, f32)> = shares.iter().map(|share| share / sum).enumerate().collect();
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(ranking)
}

/// The confusion matrix, `counts[class][predicted]`, zeros left out.
pub fn confusion(counts: &[Vec<u64>]) -> String {
    let mut out = String::from("    is \\ taken for");
    for class in 0..counts.len() {
        out.push_str(&format!("{class:>4}"));
    }
    out.push('\n');
    for (class, row) in counts.iter().enumerate() {
        out.push_str(&format!("    {class:>14}"));
        for &count in row {
            out.push_str(&if count == 0 { "   .".to_owned() } else { format!("{count:>4}") });
        }
        out.push('\n');
    }
    out
}
