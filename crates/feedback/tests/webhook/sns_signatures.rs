//! Signatures made with the key of `sns.pem`, which nobody has kept.

/// Over the notification of the vectors, RSA with SHA-1.
pub const VERSION_ONE: &str = "\
    QYn9kecM9H4RiARS+HZg1QppJHoqGMjhDE4sHkxTbV4mEIzEMBhGldXmM0StysbBmG7ElHjKZbYYBc+Wh5QYa1B4LughdbQNKZLL\
    T7MRySXk1A8mWBc06NKzqd4RcfPT7C5Q/R0GEM9j/LiqI9UtNggHWgcMgh9TCe166P7HLLNSx5W1JFk1zde9RveBct5U/QCs7Krt\
    DyuRsUEm3T8uW42MRmPY/O8NlycYnLX2xFQVwW4kvUWAKuVY4benoUPLWFxkWM1L7++QKMct6kYS5/TYkst1na9sU05XIlrZ7+hS\
    yLzm9JykPfT+LMqmus5MQbh0YZEp0NTSrc1GN/X8dQ==\
";

/// The same, RSA with SHA-256.
pub const VERSION_TWO: &str = "\
    cTK9+AHDHZP0hfmELq6Y4MprQVwWJmbc5sXcQx2+mSmllm2EpPz6EkSbX6/TfBQSGRsquhz00RDq7SdJHsIewTsqXvO8I/L2C6GV\
    bQZ7wDRux2B767043a1n2ZE6JtmV4q9qWG6D3eZ8wqJsFpV/fEZbfBZvyxRUHoZleT2Lt6pbX19UJ2BOtoaxwlqbhyK2zPuEL8OI\
    2RGzVBChSy7AY/QieUDJ+uWv/72Wn6wNPZlm5Rs08bTGKCCfSxppwk3EplmQofeYmPx6s8/Ydr23hWKIIm4uESBJ6YmOyHvHpVjz\
    gtacE9aquuWgh5TeNb9DiyUBxytO6azDASllDJdzsA==\
";

/// Over an unsubscribe confirmation without its token, RSA with SHA-256.
pub const WITHOUT_TOKEN: &str = "\
    hF8V4GqeI4S+ZKBuOQ74QtvGp2LrGSc+0rgS1HYszOf8Ytv5dgFIaB+smkWwSi3A/FoWvSJsHdEG7yp3SHDD/Vh42EsB7P/exxwI\
    HCImlTHG/ShJX17+2TrmRpq09CAKuXhuWDR8MyKmrwZCGqpCLBJm9lcIoO0E0nIN6W8jqt798rH8yw6YkO1h65oX/V89WTXLyMQw\
    GseALUg8RTQUdQrlUy8ubQqxNp66YATVIiyqVIIsFP8GxueTN0yKBtxbl3l8uip2rtUmludioesKel8t6ZWmxX1nrqezWpJnMTk4\
    FhllgLlBxSIht5W+tR5rmWDl2e8uXJNNue2xIKB2bg==\
";
