"""The names of the readings that can be chosen, and of the file of the memory that some need."""

CRITERIA = {'tau by mIoU': 'mIoU', 'tau by tail mIoU': 'mIoU_tail', 'tau by mAcc': 'mAcc'}
IOU_RULE = 'IoU rule'
WITH_MEMORY = ('memory', 'memory and tau', 'memory and IoU rule')
"""What there is with a memory: at the weight of the highest mIoU with the natural argmax, at the
weight and tau of the highest mIoU, and the IoU rule at the first one's weight."""
AUTO = 'auto'
CHOICES = (AUTO, 'natural', *CRITERIA, IOU_RULE, *WITH_MEMORY)
MEMORY_FILE = 'class_memory.pth'
"""Beside the file of an operating point that needs it."""
