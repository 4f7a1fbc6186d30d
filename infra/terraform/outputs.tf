output "store_url" {
  description = "Argument of `vital store use`."
  value       = local.prefix == "" ? "s3://${aws_s3_bucket.store.id}" : "s3://${aws_s3_bucket.store.id}/${local.prefix}"
}

output "worker_policy_arn" {
  description = "Policy for machines that run the line."
  value       = aws_iam_policy.worker.arn
}

output "maintainer_policy_arn" {
  description = "Policy for people who clean the store up."
  value       = aws_iam_policy.maintainer.arn
}
