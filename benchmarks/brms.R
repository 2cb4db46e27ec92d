# The benchmark's model in brms, with the priors of psymech. Arguments: the table (CSV), the priors (CSV), draws, warm-up,
# chains, cores, seed. Prints one line of JSON; the draws of SDs, correlations, fixed effects and therapist effects are
# summarised by posterior's rank-normalised ESS.
suppressPackageStartupMessages({library(brms); library(posterior)})
# Debian's BH is empty: its headers are the system's.
if (system.file("include", package = "BH") == "") rstan::rstan_options(boost_lib = "/usr/include")
arguments <- commandArgs(trailingOnly = TRUE)
frame <- read.csv(arguments[1])
given <- read.csv(arguments[2], stringsAsFactors = FALSE)
number <- as.integer(arguments[3:7])
priors <- do.call(c, lapply(seq_len(nrow(given)), function(i) {
  row <- given[i, ]
  set_prior(row$prior, class = row$class, coef = row$coef, group = row$group)
}))
formula <- symptoms ~ exposure + restructuring + alliance +
  (1 + exposure + restructuring + alliance | therapist) +
  (1 + exposure + restructuring + alliance | patient)
begin <- proc.time()
fit <- brm(
  formula, frame, prior = priors, iter = number[1] + number[2], warmup = number[2], chains = number[3],
  cores = number[4], seed = number[5], refresh = 0, silent = 2
)
total <- (proc.time() - begin)[["elapsed"]]
times <- rstan::get_elapsed_time(fit$fit)
draws <- as_draws_array(fit)
kept <- grep("^(b_|sd_|cor_|sigma|r_therapist)", variables(draws), value = TRUE)
summary <- summarise_draws(subset_draws(draws, kept), "mean", "rhat", "ess_bulk", "ess_tail")
divergent <- sum(nuts_params(fit, pars = "divergent__")$Value)
means <- summary[grep("^(b_|sd_|sigma)", summary$variable), ]
cat(sprintf(
  '{"total_seconds": %.2f, "sampling_cpu_seconds": %.2f, "min_ess_bulk": %.1f, "min_ess_tail": %.1f, "r_hat_max": %.4f, "divergences": %d, "means": {%s}, "brms": "%s", "rstan": "%s"}\n',
  total, sum(times), min(summary$ess_bulk), min(summary$ess_tail), max(summary$rhat), as.integer(divergent),
  paste(sprintf('"%s": %.5f', means$variable, means$mean), collapse = ", "), packageVersion("brms"), packageVersion("rstan")
))
