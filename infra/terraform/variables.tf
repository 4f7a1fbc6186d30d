variable "bucket" {
  description = "Name of the bucket, unique among all of AWS's."
  type        = string
}

variable "prefix" {
  description = "Prefix of the store in the bucket; empty for the whole bucket."
  type        = string
  default     = "vital"
}

variable "keep_deleted_days" {
  description = "Days for which deleted objects can be brought back."
  type        = number
  default     = 30
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}
