package insitu.recommend.als

/** What is minimised, and how: the parameters of MLlib's ALS that a row's solution depends on.
  *
  * @param reg regParam, which counts as often as the row has ratings (ALS-WR; Zhou et al. 2008).
  * @param alpha of implicit feedback (Hu, Koren, Volinsky 2008, doi:10.1109/ICDM.2008.22).
  * @param conjugateUpTo rows with at most so many ratings, and no more than 1024, get some steps of conjugate gradient
  *   from their last factors, and the others their exact solution; 0 for no such steps.
  */
private[als] final case class Problem(
    rank: Int,
    reg: Float,
    implicitly: Boolean,
    alpha: Float,
    nonnegative: Boolean,
    conjugateUpTo: Int
) {

  /** How much a rating's error counts beyond what every pair of row and column counts: 1 for explicit ratings. */
  def confidence(rating: Float): Float = if (implicitly) alpha * math.abs(rating) else 1f

  /** A rating's factor in the right side of the normal equations: the confidence times the preference. */
  def weight(rating: Float): Float = if (!implicitly) rating else if (rating > 0) 1 + confidence(rating) else 0f

  /** Whether a rating counts for the regularisation, as MLlib has it. */
  def counts(rating: Float): Boolean = !implicitly || rating > 0

  /** The error that a row without factors has from this rating. */
  def alone(rating: Float): Float = if (implicitly) weight(rating) else rating * rating
}
