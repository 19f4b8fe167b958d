//! Cuts a copy into pieces that fit a slot of the staging area.

/// A piece of a rectangle: `rows` rows of `width` bytes, starting at (`row`, `column`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub row: u64,
    pub column: u64,
    pub width: u64,
    pub rows: u64,
}

/// The pieces of a rectangle of `height` rows of `width` bytes, each of at most `slot_len` bytes: whole rows where they fit, else parts of a row.
pub fn chunks(width: u64, height: u64, slot_len: u64) -> impl Iterator<Item = Chunk> {
    let slot_len = slot_len.max(1);
    let rows_at_once = slot_len.checked_div(width).unwrap_or(1).max(1);
    let (mut row, mut column) = (0, 0);
    std::iter::from_fn(move || {
        if width == 0 || row >= height {
            return None;
        }
        if width <= slot_len {
            let rows = rows_at_once.min(height - row);
            let chunk = Chunk { row, column: 0, width, rows };
            row += rows;
            return Some(chunk);
        }
        let part = slot_len.min(width - column);
        let chunk = Chunk { row, column, width: part, rows: 1 };
        column += part;
        if column == width {
            (row, column) = (row + 1, 0);
        }
        Some(chunk)
    })
}

/// A piece of a box: `depth` slices from slice `z` on, of each the same piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxChunk {
    pub z: u64,
    pub depth: u64,
    pub slice: Chunk,
}

/// The pieces of a box of `depth` slices of `height` rows of `width` bytes, each of at most `slot_len` bytes: whole slices where they fit.
pub fn box_chunks(width: u64, height: u64, depth: u64, slot_len: u64) -> impl Iterator<Item = BoxChunk> {
    let slice_len = width.saturating_mul(height);
    let at_once = slot_len.checked_div(slice_len).unwrap_or(0);
    let mut z = 0;
    let mut pieces = None;
    std::iter::from_fn(move || {
        loop {
            if slice_len == 0 || z >= depth {
                return None;
            }
            if at_once > 0 {
                let slices = at_once.min(depth - z);
                let slice = Chunk { row: 0, column: 0, width, rows: height };
                z += slices;
                return Some(BoxChunk { z: z - slices, depth: slices, slice });
            }
            match pieces.get_or_insert_with(|| chunks(width, height, slot_len)).next() {
                Some(slice) => return Some(BoxChunk { z, depth: 1, slice }),
                None => (z, pieces) = (z + 1, None),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_is_in_exactly_one_chunk(width in 0u64..300, height in 0u64..40, slot in 1u64..500) {
            let mut seen = vec![0u8; (width * height) as usize];
            for chunk in chunks(width, height, slot) {
                let len = chunk.width * chunk.rows;
                prop_assert!(len <= slot && len > 0);
                for row in chunk.row..chunk.row + chunk.rows {
                    for column in chunk.column..chunk.column + chunk.width {
                        seen[(row * width + column) as usize] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
        }

        #[test]
        fn every_byte_of_a_box_is_in_exactly_one_chunk(
            width in 0u64..40,
            height in 0u64..10,
            depth in 0u64..8,
            slot in 1u64..300,
        ) {
            let mut seen = vec![0u8; (width * height * depth) as usize];
            for BoxChunk { z, depth, slice } in box_chunks(width, height, depth, slot) {
                let len = slice.width * slice.rows * depth;
                prop_assert!(len <= slot && len > 0);
                for z in z..z + depth {
                    for row in slice.row..slice.row + slice.rows {
                        for column in slice.column..slice.column + slice.width {
                            seen[((z * height + row) * width + column) as usize] += 1;
                        }
                    }
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
        }
    }
}
