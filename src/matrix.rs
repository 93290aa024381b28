//! Matrices of `f32`: borrowed views with any non-negative strides, and an owned row-major matrix.
//!
//! A view is checked once, when it is made: from then on every index below its dimensions lies inside its slice, and
//! that check is what the kernels' unsafe code rests on.

use crate::buffer::{Buffer, LINE, PAGE};
use crate::error::{Error, Result};

/// Rows, columns and strides, known to fit in a slice of the length they were checked against.
#[derive(Clone, Copy, Debug)]
struct Layout {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Layout {
    /// Checks that every element lies inside `len` elements, without overflow on the way.
    #[inline]
    fn checked(op: &'static str, len: usize, layout: Layout) -> Result<Layout> {
        match layout.span() {
            Some(want) if want <= len => Ok(layout),
            want => Err(layout.refused(op, len, want)),
        }
    }

    #[cold]
    fn refused(&self, op: &'static str, got: usize, want: Option<usize>) -> Error {
        let Some(want) = want else { return self.too_large(op) };
        let cure = "pass a longer slice, or fewer rows and columns, or smaller strides";
        Error::Length { op, name: "data", got, want, cure }
    }

    #[inline]
    fn row_major(rows: usize, cols: usize) -> Layout {
        Layout { rows, cols, row_stride: cols, col_stride: 1 }
    }

    fn too_large(&self, op: &'static str) -> Error {
        let Layout { rows, cols, row_stride, col_stride } = *self;
        Error::TooLarge { op, rows, cols, row_stride, col_stride }
    }

    /// One past the highest index; `None` when it is not addressable. Empty matrices span nothing, whatever their
    /// strides, but rows x cols must still be a number.
    #[inline]
    fn span(&self) -> Option<usize> {
        let elements = self.rows.checked_mul(self.cols)?;
        if elements == 0 {
            return Some(0);
        }
        let down = (self.rows - 1).checked_mul(self.row_stride)?;
        let across = (self.cols - 1).checked_mul(self.col_stride)?;
        let span = down.checked_add(across)?.checked_add(1)?;
        (span <= isize::MAX as usize / size_of::<f32>()).then_some(span)
    }

    /// True when two different elements share a place: some `i * row_stride == j * col_stride` with 0 < i < rows and
    /// 0 < j < cols, whose smallest solution is given by the greatest common divisor; or a stride of 0.
    fn overlaps(&self) -> bool {
        if self.rows == 0 || self.cols == 0 {
            return false;
        }
        if self.row_stride == 0 || self.col_stride == 0 {
            return (self.row_stride == 0 && self.rows > 1) || (self.col_stride == 0 && self.cols > 1);
        }
        let (mut a, mut b) = (self.row_stride, self.col_stride);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        self.col_stride / a < self.rows && self.row_stride / a < self.cols
    }

    fn t(self) -> Layout {
        Layout { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn index(&self, row: usize, col: usize) -> Option<usize> {
        (row < self.rows && col < self.cols).then(|| row * self.row_stride + col * self.col_stride)
    }
}

/// The accessors that both views share.
macro_rules! view_accessors {
    () => {
        /// The number of rows.
        pub fn rows(&self) -> usize {
            self.layout.rows
        }

        /// The number of columns.
        pub fn cols(&self) -> usize {
            self.layout.cols
        }

        /// Elements from one row to the next.
        pub fn row_stride(&self) -> usize {
            self.layout.row_stride
        }

        /// Elements from one column to the next.
        pub fn col_stride(&self) -> usize {
            self.layout.col_stride
        }

        /// Rows and columns, as errors show them.
        pub(crate) fn shape(&self) -> (usize, usize) {
            (self.layout.rows, self.layout.cols)
        }

        /// The element at `row`, `col`, or `None` outside the matrix.
        pub fn get(&self, row: usize, col: usize) -> Option<f32> {
            self.layout.index(row, col).map(|index| self.data[index])
        }
    };
}

/// A borrowed matrix of `f32` to read, with any non-negative strides.
///
/// ```
/// use percycle::MatRef;
///
/// let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let a = MatRef::new(&data, 2, 3)?;
/// assert_eq!((a.rows(), a.cols(), a.get(1, 0)), (2, 3, Some(4.0)));
/// assert_eq!(a.t().get(0, 1), Some(4.0)); // a transpose only swaps the strides
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: &'a [f32],
    layout: Layout,
}

impl<'a> MatRef<'a> {
    /// A row-major `rows` x `cols` view of the start of `data`.
    ///
    /// # Errors
    /// [`Error::Length`] when `data` is shorter than `rows * cols`; [`Error::TooLarge`] when that product overflows.
    #[inline]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Result<Self> {
        let layout = Layout::checked("MatRef::new", data.len(), Layout::row_major(rows, cols))?;
        Ok(Self { data, layout })
    }

    /// A view in which element `(i, j)` is `data[i * row_stride + j * col_stride]`. Strides of 0 repeat an element.
    ///
    /// # Errors
    /// [`Error::Length`] when the last element lies outside `data`; [`Error::TooLarge`] when its index overflows.
    #[inline]
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self> {
        let layout = Layout { rows, cols, row_stride, col_stride };
        Ok(Self { data, layout: Layout::checked("MatRef::strided", data.len(), layout)? })
    }

    view_accessors!();

    /// The transpose: the same data, read with the strides swapped.
    pub fn t(self) -> Self {
        Self { data: self.data, layout: self.layout.t() }
    }

    /// `count` rows from row `start` on, or `None` when there are not so many.
    pub fn row_range(self, start: usize, count: usize) -> Option<Self> {
        if start.checked_add(count)? > self.rows() {
            return None;
        }
        let layout = Layout { rows: count, ..self.layout };
        let offset = if count == 0 || self.cols() == 0 { 0 } else { start * self.row_stride() };
        Some(Self { data: &self.data[offset..], layout })
    }

    /// Row `i` as a slice, when its elements lie next to each other.
    pub fn row(self, i: usize) -> Option<&'a [f32]> {
        let contiguous = self.col_stride() == 1 || self.cols() <= 1;
        if i >= self.rows() || !contiguous {
            return None;
        }
        let start = if self.cols() == 0 { 0 } else { i * self.row_stride() };
        Some(&self.data[start..start + self.cols()])
    }

    /// `count` rows from row `start` on, which are there.
    pub(crate) fn rows_from(self, start: usize, count: usize) -> Self {
        self.row_range(start, count).unwrap_or_else(|| unreachable!("rows of the matrix"))
    }

    /// The rows of equal parts of at least so many, the last of which may be shorter; all of a view that repeats a row, which has no end
    /// that memory sets.
    pub(crate) fn rows_of_part(self, least: usize) -> usize {
        let parts = if self.row_stride() == 0 { 1 } else { self.rows() / least };
        self.rows().div_ceil(parts.max(1))
    }

    /// All elements, row after row, when they lie next to each other like that.
    pub(crate) fn contiguous(self) -> Option<&'a [f32]> {
        let (rows, cols) = self.shape();
        let in_rows = self.col_stride() == 1 && self.row_stride() == cols;
        in_rows.then(|| &self.data[..rows * cols])
    }

    /// Where element (0, 0) lies. Every index inside the dimensions was checked to lie in the slice behind it.
    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }
}

/// A borrowed matrix of `f32` to write, with any strides that give each element its own place.
///
/// ```
/// use percycle::{MatMut, MatRef};
///
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let mut c = [0.0; 4];
/// percycle::matmul(MatRef::new(&a, 2, 2)?, MatRef::new(&b, 2, 2)?, MatMut::new(&mut c, 2, 2)?)?;
/// assert_eq!(c, [19.0, 22.0, 43.0, 50.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    layout: Layout,
}

impl<'a> MatMut<'a> {
    /// A row-major `rows` x `cols` view of the start of `data`.
    ///
    /// # Errors
    /// [`Error::Length`] when `data` is shorter than `rows * cols`; [`Error::TooLarge`] when that product overflows.
    #[inline]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Result<Self> {
        let layout = Layout::checked("MatMut::new", data.len(), Layout::row_major(rows, cols))?;
        Ok(Self { data, layout })
    }

    /// A view in which element `(i, j)` is `data[i * row_stride + j * col_stride]`.
    ///
    /// # Errors
    /// [`Error::Length`] when the last element lies outside `data`, [`Error::TooLarge`] when its index overflows, and
    /// [`Error::Overlap`] when the strides map two elements to one place.
    #[inline]
    pub fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self> {
        let op = "MatMut::strided";
        let layout = Layout { rows, cols, row_stride, col_stride };
        let layout = Layout::checked(op, data.len(), layout)?;
        if layout.overlaps() {
            return Err(Error::Overlap { op, rows, cols, row_stride, col_stride });
        }
        Ok(Self { data, layout })
    }

    view_accessors!();

    /// The transpose: the same data, written with the strides swapped.
    pub fn t(self) -> Self {
        Self { data: self.data, layout: self.layout.t() }
    }

    /// The same matrix, borrowed for a shorter time, so that the view can be used again afterwards.
    pub fn reborrow(&mut self) -> MatMut<'_> {
        MatMut { data: self.data, layout: self.layout }
    }

    /// `count` rows from row `start` on, which are there.
    pub(crate) fn rows_from(&mut self, start: usize, count: usize) -> MatMut<'_> {
        assert!(count <= self.rows() && start <= self.rows() - count, "rows of the matrix");
        let layout = Layout { rows: count, ..self.layout };
        let offset = if count == 0 || self.cols() == 0 { 0 } else { start * self.row_stride() };
        MatMut { data: &mut self.data[offset..], layout }
    }

    /// The same matrix to read.
    pub fn as_ref(&self) -> MatRef<'_> {
        MatRef { data: self.data, layout: self.layout }
    }

    /// Row `i` as a slice, when its elements lie next to each other.
    pub fn row_mut(&mut self, i: usize) -> Option<&mut [f32]> {
        let contiguous = self.col_stride() == 1 || self.cols() <= 1;
        if i >= self.rows() || !contiguous {
            return None;
        }
        let (start, cols) = (if self.cols() == 0 { 0 } else { i * self.row_stride() }, self.cols());
        Some(&mut self.data[start..start + cols])
    }

    /// Where element (0, 0) lies. Every index inside the dimensions was checked to lie in the slice behind it, and
    /// no two of them are the same.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }
}

/// An owned row-major matrix of `f32`.
///
/// ```
/// use percycle::Matrix;
///
/// let m = Matrix::from_vec(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(m.row(1), Some(&[4.0, 5.0, 6.0][..]));
/// assert_eq!(Matrix::zeros(1, 2).as_slice(), [0.0, 0.0]);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    data: Buffer,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// A `rows` x `cols` matrix of zeros.
    ///
    /// Like `vec![0.0; n]` it has no way to refuse: dimensions from outside, which may be more than memory holds, go
    /// through [`Matrix::try_zeros`].
    pub fn zeros(rows: usize, cols: usize) -> Self {
        // Saturating: a size that overflows is refused by the allocation, not wrapped to a small one.
        Self { data: Buffer::zeros(rows.saturating_mul(cols)), rows, cols }
    }

    /// A `rows` x `cols` matrix of zeros, for dimensions that may be too large.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the elements cannot be addressed or memory for them is not to be had.
    pub fn try_zeros(rows: usize, cols: usize) -> Result<Self> {
        let mut data = Buffer::default();
        resize("Matrix::try_zeros", &mut data, rows, cols)?;
        Ok(Self { data, rows, cols })
    }

    /// A matrix whose rows stand one after another in `data`, which is copied to memory that starts on a cache line.
    ///
    /// # Errors
    /// [`Error::Length`] when `data` does not hold exactly `rows * cols` elements; [`Error::TooLarge`] when that
    /// product overflows.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f32>) -> Result<Self> {
        let op = "Matrix::from_vec";
        let layout = Layout::row_major(rows, cols);
        let want = layout.span().ok_or_else(|| layout.too_large(op))?;
        if data.len() != want {
            let cure = "pass exactly rows x cols elements";
            return Err(Error::Length { op, name: "data", got: data.len(), want, cure });
        }
        Ok(Self { data: Buffer::from(&data[..]), rows, cols })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// A view to read.
    #[inline]
    pub fn view(&self) -> MatRef<'_> {
        MatRef { data: &self.data, layout: Layout::row_major(self.rows, self.cols) }
    }

    /// A view to write.
    #[inline]
    pub fn view_mut(&mut self) -> MatMut<'_> {
        MatMut { data: &mut self.data, layout: Layout::row_major(self.rows, self.cols) }
    }

    /// All elements, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All elements, row after row, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// A copy of the elements, row after row.
    pub fn into_vec(self) -> Vec<f32> {
        self.data.to_vec()
    }

    /// Row `i`, or `None` when there is none.
    pub fn row(&self, i: usize) -> Option<&[f32]> {
        (i < self.rows).then(|| &self.data[i * self.cols..(i + 1) * self.cols])
    }
}

/// An owned row-major matrix for products to walk over, whose rows may lie further apart than they are long.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spaced {
    data: Buffer,
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl Spaced {
    /// Zeros.
    pub(crate) fn try_zeros(op: &'static str, rows: usize, cols: usize) -> Result<Self> {
        let mut zeros = Self::default();
        zeros.resize(op, rows, cols)?;
        Ok(zeros)
    }

    /// Makes it so large, its rows apart as is best for products: where rows of whole pages followed each other, the lines of one
    /// column would compete for few sets of a cache, so a line is left free between them.
    pub(crate) fn resize(&mut self, op: &'static str, rows: usize, cols: usize) -> Result<()> {
        let free = if cols.is_multiple_of(PAGE) && cols > 0 { LINE } else { 0 };
        self.resize_rows(op, rows, cols, cols.saturating_add(free))
    }

    /// Makes it so large, one row right after the other.
    pub(crate) fn resize_closed(&mut self, op: &'static str, rows: usize, cols: usize) -> Result<()> {
        self.resize_rows(op, rows, cols, cols)
    }

    fn resize_rows(&mut self, op: &'static str, rows: usize, cols: usize, row_stride: usize) -> Result<()> {
        let layout = Layout { row_stride, ..Layout::row_major(rows, cols) };
        resize(op, &mut self.data, rows, row_stride).map_err(|_| layout.too_large(op))?;
        (self.rows, self.cols, self.row_stride) = (rows, cols, row_stride);
        Ok(())
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// All elements, row after row. What lies between rows was 0, and so it is as long as nobody but products writes and the number
    /// of columns stays.
    pub(crate) fn elements(&self) -> &[f32] {
        &self.data
    }

    /// The same to write, element by element and so that zeros stay zeros.
    pub(crate) fn elements_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// Elements from one row to the next in [`Spaced::elements`].
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// Every element lies inside of `data`, which was made to hold `rows` times `row_stride`.
    fn layout(&self) -> Layout {
        Layout { row_stride: self.row_stride, ..Layout::row_major(self.rows, self.cols) }
    }

    /// A view to read.
    #[inline]
    pub(crate) fn view(&self) -> MatRef<'_> {
        MatRef { data: &self.data, layout: self.layout() }
    }

    /// A view to write.
    #[inline]
    pub(crate) fn view_mut(&mut self) -> MatMut<'_> {
        let layout = self.layout();
        MatMut { data: &mut self.data, layout }
    }
}

/// Makes a buffer hold rows x cols values, or says that memory for them is not to be had.
pub(crate) fn resize(op: &'static str, buffer: &mut Buffer, rows: usize, cols: usize) -> Result<()> {
    let too_large = || Layout::row_major(rows, cols).too_large(op);
    let len = rows.checked_mul(cols).ok_or_else(too_large)?;
    buffer.try_resize(len).map_err(|_| too_large())
}
